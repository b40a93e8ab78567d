package kind

import (
	"strings"
	"sync"

	"sigs.k8s.io/kind/pkg/log"
)

// watcher is the logger by which kind tells how far it is.
type watcher struct {
	tell func(step string)

	once sync.Once
	do   func()
}

var _ log.Logger = (*watcher)(nil)

// onceStarted calls do when kind has read its environment, or when started is called.
func (w *watcher) onceStarted(do func()) { w.do = do }

func (w *watcher) started() { w.once.Do(w.do) }

// preparing is what kind tells first after it has read the name of the network (its docker provider's Provision). Were it
// told in other words, clusters of several labs would be made one after another.
const preparing = "Preparing nodes"

func (w *watcher) step(format string, args ...any) {
	if !strings.HasPrefix(strings.TrimSpace(format), "•") || len(args) != 1 { // its ends have other marks
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

// Warn implements log.Logger. What kind warns of (cgroup v1, its own environment variable) is known here.
func (w *watcher) Warn(string) {}

// Warnf implements log.Logger.
func (w *watcher) Warnf(string, ...any) {}

// Error implements log.Logger: errors are returned, too.
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
