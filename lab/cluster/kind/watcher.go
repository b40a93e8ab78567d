package kind

import (
	"strings"
	"sync"

	"sigs.k8s.io/kind/pkg/log"
)

// watcher is a logger for kind's library. It turns kind's messages into milestones.
type watcher struct {
	tell func(milestone string)

	once sync.Once
	do   func()
}

var _ log.Logger = (*watcher)(nil)

// onceStarted sets a function that is called once: when kind has read its environment, or by started.
func (w *watcher) onceStarted(do func()) { w.do = do }

func (w *watcher) started() { w.once.Do(w.do) }

// preparing is kind's first message after it has read the name of the network (Provision of its docker provider). If a new
// version of kind changed these words, clusters of several labs would be made one after another.
const preparing = "Preparing nodes"

func (w *watcher) step(format string, args ...any) {
	if !strings.HasPrefix(strings.TrimSpace(format), "•") || len(args) != 1 { // messages that end a step begin with another mark
		return
	}
	text, ok := args[0].(string)
	if !ok {
		return
	}
	if strings.Contains(text, preparing) {
		w.started()
	}
	w.tell(strings.ToLower(strings.TrimSpace(strings.TrimFunc(text, func(r rune) bool { return r > 127 || r == ' ' }))))
}

// Warn implements log.Logger. kind warns of cgroup v1 and of its environment variable, both of which we know.
func (w *watcher) Warn(string) {}

// Warnf implements log.Logger.
func (w *watcher) Warnf(string, ...any) {}

// Error implements log.Logger. kind returns its errors as well.
func (w *watcher) Error(string) {}

// Errorf implements log.Logger.
func (w *watcher) Errorf(string, ...any) {}

// V implements log.Logger.
func (w *watcher) V(level log.Level) log.InfoLogger { return steps{w, level == 0} }

type steps struct {
	to      *watcher
	enabled bool
}

// Info implements log.InfoLogger.
func (s steps) Info(string) {}

// Infof implements log.InfoLogger.
func (s steps) Infof(format string, args ...any) {
	if s.enabled {
		s.to.step(format, args...)
	}
}

// Enabled implements log.InfoLogger.
func (s steps) Enabled() bool { return s.enabled }
