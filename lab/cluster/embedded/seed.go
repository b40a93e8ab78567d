package embedded

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
	"github.com/eastwest-lab/eastwest/lab/host"
	"github.com/eastwest-lab/eastwest/lab/wait"
)

// A seed is the part of an etcd's content that is the same in every new cluster: what an API server writes by itself when
// it starts for the first time, and the definitions of custom resources that a cluster is to have from its start. An API
// server that finds it in its etcd need not write it, which is a third of what its start costs otherwise.
//
// It is made by a real API server, once per bundle and set of definitions, and is put into each new cluster before its
// API server asks for it, with UIDs of that cluster's own. What says who a cluster is, or depends on its addresses and
// certificates, is not in it: namespaces (the UID of kube-system is the cluster's identity), accounts, Services, addresses,
// leases.
type seed []keyValue

// keyValue is a pair of etcd. JSON writes bytes in base64, as etcd's JSON gateway wants them.
type keyValue struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

// seeded are the kinds in a seed, by the prefix of their keys.
var seeded = []string{
	"/registry/apiextensions.k8s.io/customresourcedefinitions/",
	"/registry/apiregistration.k8s.io/apiservices/",
	"/registry/clusterrolebindings/",
	"/registry/clusterroles/",
	"/registry/flowschemas/",
	"/registry/priorityclasses/",
	"/registry/prioritylevelconfigurations/",
	"/registry/rolebindings/",
	"/registry/roles/",
}

// Files of a seed, in the folder of a node.
const (
	seedNodeFile    = "seed-node.json"
	seedFile        = "seed.json"
	definitionsFile = "definitions.json"
)

// shareSeed gives a new node the seed of clusters with its definitions.
func (p *Provider) shareSeed(ctx context.Context, n node) error {
	for tries := 1; ; tries++ {
		seed, err := p.prepareSeed(ctx, n.Definitions)
		if err != nil {
			return fmt.Errorf("preparing what every API server writes: %w", err)
		}
		err = linkTree(seed, n.path(seedFile))
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) || tries > 1 { // another version of eastwest may have just removed it
			return fmt.Errorf("sharing prepared objects with %s: %w", n.Name, err)
		}
	}
}

// prepareSeed makes the seed of clusters with the definitions in a file (none if it is empty), once, and returns its path.
func (p *Provider) prepareSeed(ctx context.Context, definitions string) (string, error) {
	data := []byte("[]")
	if definitions != "" {
		var err error
		if data, err = os.ReadFile(definitions); err != nil {
			return "", fmt.Errorf("reading the definitions of the cluster: %w", err)
		}
	}
	start := p.supervised(seedNodeFile, func(n *node) (string, error) {
		return n.path(seedFile), errors.Join(makeCertificates(*n), os.WriteFile(n.path(definitionsFile), data, 0o644))
	})
	path, err := p.once(ctx, p.seedName(data), goodSeed, "starting an API server once", func(ctx context.Context, n node) (string, error) {
		result, err := start(ctx, n)
		return result, errors.Join(err, p.pruneSeeds())
	})
	if err == nil {
		now := time.Now()
		_ = os.Chtimes(path, now, now) // it is used: see pruneSeeds
	}
	return path, err
}

// seedName names a seed after all that it depends on.
func (p *Provider) seedName(definitions []byte) string {
	sum := sha256.Sum256(definitions)
	return p.seedsOfVersion() + hex.EncodeToString(sum[:])[:16] + ".json"
}

// seedsOfVersion is how the names of seeds begin that this version makes of this bundle. They depend on the kinds in a seed and
// on how etcd and the API server that made it were started.
func (p *Provider) seedsOfVersion() string {
	sum := sha256.New()
	maker := p.maker()
	fmt.Fprintf(sum, "3\n%s\n%q\n%+v\n%+v\n", p.digest(), seeded, maker.command(etcd), maker.command(apiServer))
	return seedPrefix + hex.EncodeToString(sum.Sum(nil))[:16] + "-"
}

const seedPrefix = "seed-"

// seedsKept is how long seeds of other bundles and versions are kept after their last use. Two versions that are used by turns,
// for a comparison, do not make their seeds again and again.
const seedsKept = 24 * time.Hour

// pruneSeeds removes the seeds of other bundles and of other versions of eastwest. The caller holds the lock of what labs share.
func (p *Provider) pruneSeeds() error {
	all, err := filepath.Glob(filepath.Join(p.prepared(), seedPrefix+"*.json"))
	if err != nil {
		return err
	}
	var problems []error
	for _, path := range all {
		info, err := os.Stat(path)
		if err == nil && !strings.HasPrefix(filepath.Base(path), p.seedsOfVersion()) && time.Since(info.ModTime()) > seedsKept {
			problems = append(problems, os.Remove(path))
		}
	}
	return errors.Join(problems...)
}

// goodSeed reports whether a file holds a whole seed. A machine that loses power may leave one that was not written.
func goodSeed(path string) bool {
	var all seed
	return machine.ReadJSON(path, &all) == nil && len(all) > 0
}

// makeSeed starts an API server on an empty etcd, gives it the definitions, waits until it has nothing more to write by
// itself, and writes down what it has written. The supervisor does this instead of running a node.
func (s *supervisor) makeSeed(ctx context.Context) error {
	// Nobody else ends this process if whoever started it has been killed.
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("an API server that is started once took more than 5 min"))
	defer cancel()
	running, stop := context.WithCancel(ctx)
	defer stop()
	if err := host.SetUp("lo", netip.Prefix{}); err != nil {
		return err
	}
	if err := host.AddAddress("lo", s.ip()); err != nil {
		return err
	}
	for _, name := range []string{etcd, apiServer} {
		if err := s.init.Keep(running, s.command(name)); err != nil {
			return err
		}
	}
	config, err := machine.Config(s.path("pki", "admin.conf"))
	if err != nil {
		return err
	}
	config.QPS = -1 // no client-side limit
	if err := machine.APIAnswers(ctx, config); err != nil {
		return err
	}
	if err := s.define(ctx, config); err != nil {
		return err
	}
	all, err := readSeed(ctx)
	if err != nil {
		return err
	}
	if err := machine.WriteJSON(s.path(seedFile), all); err != nil {
		return err
	}
	stop() // so that they are not started again
	s.milestone("usable")
	return nil
}

// define applies the definitions and waits until the API server has done with them, and with its own objects, all that it
// does by itself.
func (s *supervisor) define(ctx context.Context, config *rest.Config) error {
	data, err := os.ReadFile(s.path(definitionsFile))
	if err != nil {
		return err
	}
	var definitions []*unstructured.Unstructured
	if err := json.Unmarshal(data, &definitions); err != nil {
		return fmt.Errorf("reading the definitions of the cluster: %w", err)
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	kinds := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	services := client.Resource(schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"})
	flows := client.Resource(schema.GroupVersionResource{Group: "flowcontrol.apiserver.k8s.io", Version: "v1", Resource: "flowschemas"})
	served := []string{"v1.", "v1.rbac.authorization.k8s.io"}
	for _, d := range definitions {
		if _, err := kinds.Apply(ctx, d.GetName(), d, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
			return fmt.Errorf("applying %s: %w", d.GetName(), err)
		}
		group, _, _ := unstructured.NestedString(d.Object, "spec", "group")
		versions, _, _ := unstructured.NestedSlice(d.Object, "spec", "versions")
		for _, v := range versions {
			if version, ok := v.(map[string]any); ok && version["served"] == true {
				served = append(served, fmt.Sprintf("%s.%s", version["name"], group))
			}
		}
	}
	for _, each := range []struct {
		of         dynamic.ResourceInterface
		conditions map[string]string
		names      []string
	}{
		{kinds, map[string]string{"NamesAccepted": "True", "Established": "True"}, nil},
		{services, map[string]string{"Available": "True"}, served},
		{flows, map[string]string{"Dangling": "False"}, nil},
	} {
		err := wait.Until(ctx, "what the API server writes by itself", wait.Options{Within: startWithin}, func(ctx context.Context) error {
			list, err := each.of.List(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			there := map[string]bool{}
			for _, o := range list.Items {
				there[o.GetName()] = true
				for kind, status := range each.conditions {
					if !hasCondition(&o, kind, status) {
						return fmt.Errorf("%s %s does not have the condition %s: %s", o.GetKind(), o.GetName(), kind, status)
					}
				}
			}
			for _, name := range each.names {
				if !there[name] {
					return fmt.Errorf("there is no APIService %s", name)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// startWithin bounds waits for a part of etcd's or an API server's start.
const startWithin = 90 * time.Second

// fieldManager is the field manager of what is applied to a cluster for the lab; the mesh uses the same.
const fieldManager = "eastwest"

func hasCondition(o *unstructured.Unstructured, kind, status string) bool {
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		if condition, ok := c.(map[string]any); ok && condition["type"] == kind {
			return condition["status"] == status
		}
	}
	return false
}

// readSeed reads the seed from a running etcd.
func readSeed(ctx context.Context) (seed, error) {
	var all seed
	for _, prefix := range seeded {
		var answer struct {
			KVs seed `json:"kvs"`
		}
		after := []byte(prefix)
		after[len(after)-1]++ // the first key that does not have the prefix
		err := askEtcd(ctx, "range", map[string]any{"key": []byte(prefix), "range_end": after}, &answer)
		if err != nil {
			return nil, fmt.Errorf("reading %s from etcd: %w", prefix, err)
		}
		all = append(all, answer.KVs.plain()...)
	}
	return all, nil
}

// uids finds the UID of an object as etcd holds it, in protobuf or JSON: text of always the same length.
var uids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// plain returns the objects with one UID, their own. Others cannot be given another one by replacing text, so they are no
// part of a seed.
func (s seed) plain() (plain seed) {
	for _, pair := range s {
		if len(uids.FindAllIndex(pair.Value, 2)) == 1 {
			plain = append(plain, pair)
		}
	}
	return plain
}

// renewed returns the objects with new UIDs: no two clusters have an object in common.
func (s seed) renewed() seed {
	renewed := make(seed, len(s))
	for i, pair := range s {
		renewed[i] = keyValue{
			Key:   pair.Key,
			Value: uids.ReplaceAllFunc(pair.Value, func([]byte) []byte { return []byte(uuid.NewUUID()) }),
		}
	}
	return renewed
}

// Bounds of a transaction. etcd's own are 128 operations and 1.5 MiB.
const (
	mostPairs = 100
	mostBytes = 1 << 20
)

// plant puts the seed into the node's etcd, which may be starting. A key that is there already keeps its value: the API
// server may have been quicker.
func (s *supervisor) plant(ctx context.Context) error {
	var all seed
	if err := machine.ReadJSON(s.path(seedFile), &all); err != nil {
		return err
	}
	err := wait.Until(ctx, "etcd to answer", wait.Options{Within: startWithin, Every: 10 * time.Millisecond}, func(ctx context.Context) error {
		return askEtcd(ctx, "range", map[string]any{"key": []byte("/registry"), "limit": 1}, nil)
	})
	if err != nil {
		return err
	}
	for all = all.renewed(); len(all) > 0; {
		n, size := 0, 0
		for n < min(len(all), mostPairs) && (n == 0 || size+len(all[n].Value) < mostBytes) {
			size += len(all[n].Value)
			n++
		}
		planted, err := create(ctx, all[:n]...)
		if err != nil {
			return err
		}
		if !planted { // some key is there
			for _, pair := range all[:n] {
				if _, err := create(ctx, pair); err != nil {
					return err
				}
			}
		}
		all = all[n:]
	}
	return nil
}

// create creates keys in one transaction, and reports whether it did: it changes nothing if one of them is there.
func create(ctx context.Context, pairs ...keyValue) (bool, error) {
	var compare, success []any
	for _, pair := range pairs {
		compare = append(compare, map[string]any{"target": "CREATE", "key": pair.Key, "create_revision": "0"})
		success = append(success, map[string]any{"request_put": pair})
	}
	var answer struct {
		Succeeded bool `json:"succeeded"`
	}
	if err := askEtcd(ctx, "txn", map[string]any{"compare": compare, "success": success}, &answer); err != nil {
		return false, fmt.Errorf("writing to etcd: %w", err)
	}
	return answer.Succeeded, nil
}

// etcdClient keeps its connection to itself: etcd is on the node's loopback.
var etcdClient = &http.Client{Transport: &http.Transport{}}

// askEtcd calls etcd's key-value service by its JSON gateway. answer may be nil.
func askEtcd(ctx context.Context, method string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, etcdURL+"/v3/kv/"+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := etcdClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(data)))
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(data, answer)
}
