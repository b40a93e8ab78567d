// Package doctor runs doctor in the broken state of every scenario of the catalogue, and before and after it. Doctor must find
// what the scenario says, first and alone, and nothing where nothing is wrong. It needs root and a bundle:
//
//	EASTWEST_DOCTOR_RUNS=5 go test -timeout 2h ./tests/doctor    # each scenario five times
//	EASTWEST_DOCTOR_RUNS=1 go test -timeout 1h ./tests/doctor -run TestCatalogue/late-cacerts
//	EASTWEST_DOCTOR_RUNS=1 go test -timeout 1h ./tests/doctor -args -update    # writes scenarios/doctor.json
//
// Without the variable the catalogue is left out: its own test runs doctor, too.
package doctor

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/eastwest-lab/eastwest/lab"
	"github.com/eastwest-lab/eastwest/lab/doctor"
	"github.com/eastwest-lab/eastwest/lab/doctor/facts"
	"github.com/eastwest-lab/eastwest/lab/doctor/findings"
	"github.com/eastwest-lab/eastwest/lab/engine"
	"github.com/eastwest-lab/eastwest/lab/report"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/verb"
	"github.com/eastwest-lab/eastwest/lab/wait"
	"github.com/eastwest-lab/eastwest/tests/labs"
)

const (
	runsEnv = "EASTWEST_DOCTOR_RUNS" // how often each scenario is broken and examined
	record  = "../../scenarios/doctor.json"
	labName = "doctor-test"
)

// quick is how long doctor may take on two healthy clusters with ten proxies. Other things may run on the machine, so only the
// fastest of a few tries counts.
const (
	quick = 3 * time.Second
	tries = 3
)

var update = flag.Bool("update", false, "write down what doctor found")

func TestMain(m *testing.M) {
	lab.Supervise()
	os.Exit(m.Run())
}

func runs(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv(runsEnv))
	require.NoError(t, err, runsEnv)
	return n
}

// examine runs doctor. If that takes long, it logs which parts did.
func examine(t *testing.T, l *lab.Lab) doctor.Report {
	t.Helper()
	var mu sync.Mutex
	var slow []string
	start := time.Now()
	r := doctor.Examine(t.Context(), doctor.Targets(l.Mesh), doctor.Options{Progress: func(cluster, part string, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if took > wait.Bound(quick/3) {
			slow = append(slow, fmt.Sprintf("%s of %s %s", part, cluster, took.Round(time.Millisecond)))
		}
	}})
	if took := time.Since(start); took > wait.Bound(quick) {
		t.Logf("doctor took %s: %s; unread %v", took.Round(time.Millisecond), strings.Join(slow, ", "), r.Unread)
	}
	return r
}

func TestCatalogue(t *testing.T) {
	if os.Getenv(runsEnv) == "" {
		t.Skip("takes as long as the catalogue, whose own test runs doctor as well: run with " + runsEnv + "=1, or `make doctor`")
	}
	labs.Need(t)
	files, err := filepath.Glob("../../scenarios/*/scenario.yaml")
	require.NoError(t, err)
	byTopology := map[string][]*scenario.Scenario{}
	for _, file := range files {
		s, err := scenario.Load(file, verb.Table())
		require.NoError(t, err)
		key, err := json.Marshal(s.Topology)
		require.NoError(t, err)
		byTopology[string(key)] = append(byTopology[string(key)], s)
	}
	results := map[string]verb.Diagnosed{}
	if data, err := os.ReadFile(record); err == nil {
		require.NoError(t, json.Unmarshal(data, &results))
	}
	for _, its := range byTopology {
		var l *lab.Lab
		for _, s := range its {
			t.Run(s.Name, func(t *testing.T) {
				if l == nil || !l.Suits(s.Topology) {
					l = makeLab(t, l, s.Topology)
				}
				if d := diagnose(t, l, s); *update && !t.Failed() {
					results[s.Name] = d
					write(t, results)
				}
			})
		}
		if l != nil {
			l.Close()
			home, err := lab.Home()
			require.NoError(t, err)
			assert.NoError(t, lab.Down(t.Context(), home, labName))
		}
	}
}

// write saves what was found, after each scenario, since all of them take an hour.
func write(t *testing.T, results map[string]verb.Diagnosed) {
	t.Helper()
	data, err := json.MarshalIndent(results, "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(record, append(data, '\n'), 0o644))
}

// makeLab makes a lab that outlives the scenario, and removes the old one, if any.
func makeLab(t *testing.T, old *lab.Lab, topology scenario.Topology) *lab.Lab {
	t.Helper()
	home, err := lab.Home()
	require.NoError(t, err)
	if old != nil {
		old.Close()
		require.NoError(t, lab.Down(t.Context(), home, labName))
	}
	l, err := lab.Up(t.Context(), lab.Options{Home: home, Name: labName, Topology: topology})
	require.NoError(t, err)
	return l
}

// diagnose breaks the mesh as the scenario does, examines it, and puts it back.
func diagnose(t *testing.T, l *lab.Lab, s *scenario.Scenario) verb.Diagnosed {
	t.Helper()
	finds, ok := verb.Finds(s)
	require.True(t, ok, "its diagnosis does not ask doctor")
	d := verb.Diagnosed{Blamed: map[string]int{}, Effects: map[string]int{}}
	for range runs(t) {
		require.Empty(t, examine(t, l).Findings, "before")
		until := scenario.Symptoms
		if len(s.Break) == 0 {
			until = scenario.Operate
		}
		folder, err := report.NewFolder(filepath.Join(t.TempDir(), "run"))
		require.NoError(t, err)
		sink := report.Multi(folder, report.Terminal(io.Discard, report.TerminalOptions{}))
		v, err := engine.Run(t.Context(), l, s, engine.RunOptions{Until: until, Folder: folder, Sink: sink})
		require.NoError(t, err)
		require.Equal(t, report.Passed, v.Result, v.Reason)
		r := examine(t, l)
		d.Runs++
		for i, f := range r.Findings {
			if f.Severity == findings.Info {
				continue
			}
			d.Blamed[f.ID]++
			if i == 0 {
				assert.Equal(t, finds, f.ID, f.Says)
			} else {
				assert.NotEqual(t, findings.Error, f.Severity, "%s is blamed as well: %s", f.ID, f.Says)
			}
			for _, e := range f.Effects {
				d.Effects[e.ID]++
			}
		}
		if finds == doctor.Nothing {
			assert.False(t, r.Counts())
			assert.True(t, r.Complete(), r.Unread)
		} else {
			assert.Equal(t, d.Runs, d.Blamed[finds])
		}
		_, err = engine.Undo(t.Context(), l, "")
		require.NoError(t, err)
	}
	return d
}

// TestCommand runs doctor as a user does: on contexts of a kubeconfig, with a probe that leaves nothing behind, and with a page
// that needs no other file.
func TestCommand(t *testing.T) {
	l := labs.Up(t, lab.Options{Name: labName + "-command", Topology: lab.DefaultTopology()})
	binary, err := labs.BuildCommand()
	require.NoError(t, err)
	kubeconfig := l.Env().Kubeconfig
	run := func(args ...string) (string, error) {
		args = append([]string{"doctor", "--kubeconfig", kubeconfig, "--context", "cluster-a", "--context", "cluster-b"}, args...)
		out, err := exec.Command(binary, args...).CombinedOutput()
		return string(out), err
	}
	before := counted(t, l)
	best := time.Hour
	for range tries {
		start := time.Now()
		require.Empty(t, examine(t, l).Findings)
		best = min(best, time.Since(start))
	}
	assert.Less(t, best, wait.Bound(quick))
	assert.Equal(t, before, counted(t, l), "what doctor has tried shows in what people look at")
	out, err := run("--probe", "-o", "json")
	require.NoError(t, err, out)
	var r doctor.Report
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	assert.Empty(t, r.Findings)
	assert.True(t, r.Complete())
	for _, context := range []string{"cluster-a", "cluster-b"} {
		left, err := exec.Command(filepath.Join(l.Env().BinDir, "kubectl"), "--kubeconfig", kubeconfig, "--context", context,
			"get", "pods,services", "-A", "-l", "eastwest.dev/probe", "-o", "name").Output()
		require.NoError(t, err)
		assert.Empty(t, strings.TrimSpace(string(left)))
	}
	page, err := run("-o", "html")
	require.NoError(t, err, page)
	assert.Equal(t, "text/html; charset=utf-8", http.DetectContentType([]byte(page)))
	assert.NotContains(t, page, "src=")
	assert.NotContains(t, page, "href=")
	secrets, err := os.ReadFile(kubeconfig)
	require.NoError(t, err)
	for _, field := range strings.Fields(string(secrets)) {
		if len(field) > 200 { // keys and certificates of the user
			assert.NotContains(t, out+page, field)
		}
	}
}

// counted returns the counters of TLS handshakes in the proxies of echo, refused ones included.
func counted(t *testing.T, l *lab.Lab) (pages []string) {
	t.Helper()
	filter := url.QueryEscape(`15006\.ssl\.(handshake|connection_error|fail_verify|no_certificate)`)
	for _, m := range l.Mesh.Members {
		pods, err := m.ReadyPods(t.Context(), "echo")
		require.NoError(t, err)
		page, err := m.Admin(t.Context(), pods[0], "/stats?filter="+filter)
		require.NoError(t, err)
		require.Contains(t, string(page), "ssl.fail_verify_no_cert")
		pages = append(pages, string(page))
	}
	return pages
}

// TestRights reads as a user who may not read everything. Doctor names what it could not read and examines the rest. Where
// port-forward is not allowed it runs a command in the pods.
func TestRights(t *testing.T) {
	l := labs.Up(t, lab.Options{Name: labName + "-rights", Topology: lab.DefaultTopology()})
	read := func(groups, resources []string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: groups, Resources: resources, Verbs: []string{"get", "list"}}
	}
	core := []string{""}
	view := []rbacv1.PolicyRule{
		read(core, []string{"namespaces", "pods", "pods/log", "configmaps", "services"}),
		read([]string{"apps", "discovery.k8s.io", "security.istio.io", "networking.istio.io", "admissionregistration.k8s.io"}, []string{"*"}),
	}
	may := func(resource string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: core, Resources: []string{resource}, Verbs: []string{"create"}}
	}
	secrets := read(core, []string{"secrets"})
	for name, test := range map[string]struct {
		rules []rbacv1.PolicyRule
		lost  []facts.Part // of each cluster
	}{
		"all":          {append(view, secrets, may("pods/portforward"), may("pods/exec")), nil},
		"forward-only": {append(view, secrets, may("pods/portforward")), nil},
		"no-secrets":   {append(view, may("pods/portforward"), may("pods/exec")), []facts.Part{facts.Secrets}},
		"exec-only":    {append(view, secrets, may("pods/exec")), []facts.Part{facts.Signer}},
		"view-only":    {view, []facts.Part{facts.Reach, facts.Signer, facts.IstiodPage, facts.Proxies, facts.Secrets}},
		"nothing-more": {nil, []facts.Part{
			facts.Gateways, facts.Namespaces, facts.Pods, facts.Policies, facts.RootMaps, facts.Secrets, facts.Services, facts.Webhooks,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var targets []doctor.Target
			for _, target := range doctor.Targets(l.Mesh) {
				kube, err := kubernetes.NewForConfig(target.Config)
				require.NoError(t, err)
				meta := metav1.ObjectMeta{Name: "doctor-" + name}
				role := &rbacv1.ClusterRole{ObjectMeta: meta, Rules: test.rules}
				_, err = kube.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{})
				require.NoError(t, err)
				_, err = kube.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
					ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name},
					Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: name}},
				}, metav1.CreateOptions{})
				require.NoError(t, err)
				target.Config.Impersonate = rest.ImpersonationConfig{UserName: name}
				targets = append(targets, target)
			}
			r := doctor.Examine(t.Context(), targets, doctor.Options{})
			assert.False(t, r.Counts(), "%+v", r.Findings)
			assert.Equal(t, len(r.Unread) == 0, r.Complete())
			lost := map[string][]facts.Part{}
			for _, u := range r.Unread {
				if name == "forward-only" && u.Part == facts.Reach {
					continue // unless its proxies have called the other network already
				}
				lost[u.Cluster] = append(lost[u.Cluster], u.Part)
			}
			for _, target := range targets {
				assert.ElementsMatch(t, test.lost, lost[target.Name], "%+v", r.Unread)
			}
		})
	}
}
