package scenario

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/eastwest-lab/eastwest/lab/strict"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// names are what the steps of a scenario may refer to. A list is nil while it is not known: then no name is complained
// about.
type names struct {
	file                              string // the scenario's own
	folder                            fs.FS  // beside the scenario; nil if there is none to look at
	clusters, apps, services, streams []string
	inManifests                       []string // namespaces; see namespaces
}

// check looks up a name that a file refers to.
func (n *names) check(kind, name string) *strict.Problem {
	switch kind {
	case "cluster":
		return unknown(kind, name, n.clusters)
	case "app", "app-or-service", "workload":
		return n.app(kind, name)
	case "service":
		return unknown(kind, name, n.services)
	case "stream":
		return unknown(kind, name, n.streams)
	case "namespace":
		return unknown(kind, name, n.namespaces())
	case "file":
		return n.beside(name)
	}
	return &strict.Problem{What: "there is no such kind of name: " + kind}
}

// unknown returns the problem of a name that is none of the known ones, nil if it is one or none are known.
func unknown(kind, name string, known []string) *strict.Problem {
	if known == nil || slices.Contains(known, name) {
		return nil
	}
	p := strict.Unknown(kind, name, known)
	if len(known) == 0 {
		p.Wanted = fmt.Sprintf("a %s of the scenario, which has none", kind)
	}
	return &p
}

// app looks up client@cluster-a, or a service without a cluster.
func (n *names) app(kind, name string) *strict.Problem {
	service, cluster, at := strings.Cut(name, "@")
	if !label.MatchString(service) || at == (cluster == "") || !at && kind != "app-or-service" {
		return &strict.Problem{What: "not an app", Wanted: refs[kind].Wanted, Seen: strict.Quote(name)}
	}
	if !at {
		return unknown("service", name, n.services)
	}
	if p := unknown("cluster", cluster, n.clusters); p != nil || kind == "workload" {
		return p
	}
	return unknown("app", name, n.apps)
}

// beside looks up a file. Scenarios come from strangers: a name never leads out of the scenario's own folder.
func (n *names) beside(name string) *strict.Problem {
	const wanted = "a file beside the scenario"
	if !fs.ValidPath(name) || name == "." || strings.Contains(name, `\`) {
		return &strict.Problem{
			What:   "not a file of the scenario's folder",
			Wanted: wanted,
			Seen:   strict.Quote(name),
			Try:    "a plain name, like manifest.yaml",
		}
	}
	if n.folder == nil {
		return nil
	}
	info, err := fs.Stat(n.folder, name) // a root: a link that leads out of the folder is an error
	if err == nil && info.Mode().IsRegular() {
		return nil
	}
	p := &strict.Problem{What: "no such file", Wanted: wanted, Seen: strict.Quote(name)}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.Seen = err.Error()
	}
	var files []string
	if entries, err := fs.ReadDir(n.folder, path.Dir(name)); err == nil {
		for _, e := range entries {
			files = append(files, path.Join(path.Dir(name), e.Name()))
		}
	}
	p.Try = strict.DidYouMean(name, files)
	return p
}

// ownNamespaces are those that Kubernetes and the lab make themselves. The lab's apps run in production (package mesh).
var ownNamespaces = []string{"default", "istio-system", "kube-node-lease", "kube-public", "kube-system", "production"}

// namespaces returns all that a step may name: the lab's own and those in the manifests beside the scenario. It returns nil
// if these cannot be known.
func (n *names) namespaces() []string {
	if n.folder == nil {
		return nil
	}
	if n.inManifests == nil {
		n.inManifests = n.readNamespaces()
	}
	return n.inManifests
}

func (n *names) readNamespaces() []string {
	files, err := fs.Glob(n.folder, "*.y*ml")
	if err != nil {
		return nil // only a bad pattern fails, and this one is good
	}
	known := slices.Clone(ownNamespaces)
	for _, file := range files {
		if file == filepath.Base(n.file) {
			continue
		}
		if info, err := fs.Stat(n.folder, file); err != nil || info.Size() > strict.MaxSize {
			continue
		}
		data, err := fs.ReadFile(n.folder, file)
		if err != nil {
			continue // a step that names the file reports it
		}
		documents, err := strict.Documents(data)
		if err != nil {
			continue // nothing can apply it
		}
		for i := range documents {
			known = append(known, namespacesOf(&documents[i])...)
		}
	}
	slices.Sort(known)
	return slices.Compact(known)
}

// namespacesOf returns the namespaces that a manifest makes or mentions, in its lists and templates too.
func namespacesOf(n *yaml.Node) []string {
	var found []string
	add := func(n *yaml.Node) {
		if n != nil && n.Kind == yaml.ScalarNode && namespace.MatchString(n.Value) {
			found = append(found, n.Value)
		}
	}
	add(strict.Child(n, "namespace").Value)
	if kind := strict.Child(n, "kind").Value; kind != nil && kind.Value == "Namespace" {
		if metadata := strict.Child(n, "metadata").Value; metadata != nil {
			add(strict.Child(metadata, "name").Value)
		}
	}
	for _, child := range n.Content {
		found = append(found, namespacesOf(child)...)
	}
	return found
}

// appNames returns the apps and services that steps may name. One that is itself wrong counts too: its own report is
// enough. Both are nil if the list cannot be read.
func appNames(n *yaml.Node) (apps, services []string) {
	if n == nil {
		return []string{}, []string{}
	}
	if n.Kind != yaml.SequenceNode {
		return nil, nil
	}
	for _, item := range n.Content {
		name, _, _ := strings.Cut(item.Value, "@")
		apps, services = append(apps, item.Value), append(services, name)
	}
	return unique(apps), unique(services)
}

// streamNames returns the streams that steps may name, like appNames.
func streamNames(n *yaml.Node) []string {
	if n == nil {
		return []string{}
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	var names []string
	for i := 0; i < len(n.Content); i += 2 {
		names = append(names, n.Content[i].Value)
	}
	return unique(names)
}

// unique is words.Unique, but never nil: a list without names is known to have none.
func unique(list []string) []string { return append([]string{}, words.Unique(list)...) }
