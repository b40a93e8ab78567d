package mesh

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/eastwest-lab/eastwest/lab/cluster"
)

// namespaces is an API server that has nothing but namespaces, by name. Like a real one, it creates one of a name once.
type namespaces struct {
	mu  sync.Mutex
	all map[string]metav1.PartialObjectMetadata
}

func newNamespaces(uid string) *namespaces {
	n := &namespaces{all: map[string]metav1.PartialObjectMetadata{}}
	var system metav1.PartialObjectMetadata
	system.Name, system.UID = metav1.NamespaceSystem, types.UID(uid)
	n.all[system.Name] = system
	return n
}

func (n *namespaces) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	answer := func(code int, content any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(content) // the client has gone otherwise
	}
	refuse := func(code int, reason metav1.StatusReason) {
		answer(code, metav1.Status{
			TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Reason: reason, Code: int32(code),
		})
	}
	switch name := path.Base(r.URL.Path); r.Method {
	case http.MethodGet:
		if there, ok := n.all[name]; ok {
			answer(http.StatusOK, there)
		} else {
			refuse(http.StatusNotFound, metav1.StatusReasonNotFound)
		}
	case http.MethodPost:
		var o metav1.PartialObjectMetadata
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil || name != "namespaces" {
			refuse(http.StatusBadRequest, metav1.StatusReasonBadRequest)
			return
		}
		if _, ok := n.all[o.Name]; ok {
			refuse(http.StatusConflict, metav1.StatusReasonAlreadyExists)
			return
		}
		n.all[o.Name] = o
		answer(http.StatusCreated, o)
	default: // what is applied is there, whoever else has it
		var o metav1.PartialObjectMetadata
		_ = json.NewDecoder(r.Body).Decode(&o)
		n.all[o.Name] = o
		answer(http.StatusOK, o)
	}
}

// remove deletes what has the id, as whoever has lost a race does.
func (n *namespaces) remove(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.all, func(_ string, o metav1.PartialObjectMetadata) bool { return o.Labels[cluster.IDLabel] == id })
}

// ids are those that the namespaces have, beside those of the cluster itself.
func (n *namespaces) ids() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	found := map[string]bool{}
	for _, o := range n.all {
		if id := o.Labels[cluster.IDLabel]; id != "" {
			found[id] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// at is a cluster that is reached at an address.
type at struct {
	named
	config *rest.Config
}

func (c at) RESTConfig() *rest.Config { return rest.CopyConfig(c.config) }
func (at) Context() string            { return "admin@east" }
func (at) Adopt()                     {}

// Two labs of one name, whose homes know nothing of each other, want the same clusters at the same moment and call them in
// another order. One gets both, and what the other has taken can be told by its id.
func TestTwinsOnOnePairOfClusters(t *testing.T) {
	const races = 50
	for round := range races {
		servers := []*namespaces{newNamespaces("1"), newNamespaces("2")}
		var configs []*rest.Config
		for _, s := range servers {
			http := httptest.NewServer(s)
			defer http.Close()
			configs = append(configs, &rest.Config{Host: http.URL})
		}
		problems := make([]error, 2)
		begin := make(chan struct{})
		var all sync.WaitGroup
		for i := range problems {
			o := Options{Lab: "twin", ID: fmt.Sprintf("id-%d", i), Dir: t.TempDir(), Topology: twoClusters(SharedRoot), Shared: true}
			for k, spec := range o.Topology.Clusters {
				o.Clusters = append(o.Clusters, at{named{name: spec.Name}, configs[(k+i)%2]})
			}
			all.Go(func() {
				<-begin
				problems[i] = Claim(t.Context(), o)
			})
		}
		close(begin)
		all.Wait()
		winner := slices.Index(problems, nil)
		require.GreaterOrEqual(t, winner, 0, "round %d: nobody has them: %v", round, problems)
		loser := 1 - winner
		var theirs *NotOursError
		require.ErrorAs(t, problems[loser], &theirs, "round %d", round)
		require.ErrorContains(t, theirs, fmt.Sprintf(`context "admin@east" (of lab twin, id id-%d)`, winner))
		require.False(t, strings.HasPrefix(theirs.Error(), "waiting"))
		for _, s := range servers {
			s.remove(fmt.Sprintf("id-%d", loser))
			assert.Equal(t, []string{fmt.Sprintf("id-%d", winner)}, s.ids(), "round %d", round)
			assert.Contains(t, s.all, AppNamespace)
		}
	}
}
