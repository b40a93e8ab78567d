package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/fault"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/verb"
)

// plan is a scenario with every step ready to be done. It is made before anything happens, so that what this lab cannot
// do costs nothing. A step is known by its place in these lists: a scenario that was built in Go has no lines.
type plan struct {
	changes  []verb.Step // break or operate
	symptoms expectation
	diagnose []verb.Step
	later    later
	fixes    []fix
	recover  []verb.Step
	healthy  expectation
	always   []verb.Step

	names []observe.Named // objects that the changes touch
}

// expectation is a list of checks that have to hold together.
type expectation struct {
	within time.Duration
	steps  []verb.Step
}

type later struct {
	do   []verb.Step
	then expectation
}

type fix struct {
	scenario.WrongFix
	do, stillBroken []verb.Step
}

// planner makes steps ready until the first that cannot be.
type planner struct {
	ground verb.Ground
	err    error
	names  []observe.Named
}

func (p *planner) steps(all []scenario.Step) []verb.Step {
	if p.err != nil {
		return nil
	}
	ready, err := p.ground.Steps(all)
	if err != nil {
		p.err = err
		return nil
	}
	for _, step := range ready {
		if step.Change == nil {
			continue
		}
		if err := step.Change.Available(p.ground.Mesh); err != nil {
			p.err = &SkipError{step.Place, err.Error()}
			return nil
		}
		p.names = append(p.names, fault.Names(step.Change)...)
	}
	return ready
}

func (p *planner) expect(e scenario.Expect) expectation {
	return expectation{time.Duration(e.Within), p.steps(e.Expect)}
}

// newPlan makes every step of the scenario ready. The error is a *SkipError if this lab cannot do one.
func newPlan(g verb.Ground, s *scenario.Scenario) (plan, error) {
	p := planner{ground: g}
	ready := plan{
		changes:  append(p.steps(s.Break), p.steps(s.Operate)...),
		symptoms: p.expect(s.Broken()),
		diagnose: p.steps(s.Diagnose),
		recover:  p.steps(s.Recover),
		healthy:  p.expect(s.Healthy),
		always:   p.steps(s.Always),
	}
	if s.Later != nil {
		ready.later = later{p.steps(s.Later.Do), p.expect(s.Later.Then())}
	}
	for _, f := range s.WrongFixes {
		still := ready.symptoms.steps
		if len(f.StillBroken) > 0 {
			still = p.steps(f.StillBroken)
		}
		ready.fixes = append(ready.fixes, fix{f, p.steps(f.Do), still})
	}
	ready.names = p.names
	return ready, p.err
}

// fits returns nil if all control planes are of a version that the scenario is about, and a *SkipError otherwise.
func fits(wanted scenario.IstioRange, planes map[string]string) error {
	if wanted.String() == "" {
		return nil
	}
	var seen []string
	for _, cluster := range slices.Sorted(maps.Keys(planes)) {
		if tag := planes[cluster]; !wanted.Has(tag) {
			seen = append(seen, fmt.Sprintf("%s in %s", tag, cluster))
		}
	}
	if len(planes) == 0 {
		return &SkipError{wanted.Place, fmt.Sprintf("wanted Istio %s; seen a mesh whose installed version is not written down: "+
			"try a lab that eastwest makes: `eastwest up`", wanted)}
	}
	if len(seen) == 0 {
		return nil
	}
	return &SkipError{wanted.Place, fmt.Sprintf("wanted Istio %s; seen %s: try a lab with another version: `eastwest up --istio`",
		wanted, strings.Join(seen, ", "))}
}
