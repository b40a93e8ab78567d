package bundle

import (
	"encoding/json"
	"sync"
)

// reporter hands progress on, one call at a time, whoever reports.
type reporter struct {
	mu sync.Mutex
	to func(Progress)
}

func newReporter(to func(Progress)) *reporter { return &reporter{to: to} }

func (r *reporter) tell(p Progress) {
	if r.to == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to(p)
}

// jsonLines is JSON as it lies on disk.
func jsonLines(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}
