// Package scenario is the scenario file and the topology file as data: their types, a strict loader that
// names every problem with file, line and column, and the JSON Schemas that editors complete from.
//
// A scenario breaks (or operates) a mesh in a known way, proves the symptoms, shows the diagnosis,
// proves that the usual wrong fixes do not help, recovers, and proves health again. The package knows
// the shape of such a file but no verb: the table of verbs is handed in as a Vocabulary, so that the
// words and what they do stand in one place (package lab). It imports nothing else of eastwest and
// touches no cluster; `eastwest lint FILE` and `eastwest explain FILE` need nothing but this package
// and the table.
package scenario

import (
	"slices"
	"strings"
)

// Scenario is one scenario file, checked: every name in it refers to something that exists.
//
// The tags of this type and of those inside it are the file format: Parse reads by them and Schema
// describes by them. See Vocabulary for what they mean.
type Scenario struct {
	File  string `yaml:"-"` // the path it was loaded from
	Place Place  `yaml:"-"` // of the file's first field

	Name   string   `yaml:"scenario" required:"true" name:"kebab" doc:"The scenario's name, like remote-secret-revoked: the thing, then what happened to it. In a file called scenario.yaml it is also the name of the folder."`
	Title  string   `yaml:"title" required:"true" doc:"One line that says what is wrong and what follows from it."`
	Why    string   `yaml:"why" required:"true" doc:"The story for a learner: how this comes about and why it shows itself the way it does."`
	Lesson []string `yaml:"lesson" doc:"Sections of the lesson that this scenario teaches."`

	Topology Topology `yaml:"topology" example:"{kind: multi-primary}" required:"true" doc:"The mesh that the scenario needs."`
	Apps     []App    `yaml:"apps" ref:"workload" least:"0" doc:"Workloads and the cluster each runs in, like client@cluster-a."`
	Traffic  []Stream `yaml:"traffic" doc:"Streams of calls by name. They start before the break, are recorded call by call, and flow until the end of the scenario."`

	Break      []Step     `yaml:"break" least:"1" phase:"break" doc:"What breaks the mesh. Exactly one of break and operate."`
	Operate    []Step     `yaml:"operate" phase:"operate" doc:"A planned change that the mesh has to survive. Exactly one of break and operate; an empty list is a scenario that only looks."`
	Symptoms   Expect     `yaml:"symptoms" phase:"symptoms" doc:"Checks that hold together while the mesh is broken."`
	Radius     Radius     `yaml:"blast-radius" enum:"none,inside,one-way,both-ways" doc:"Which streams lose calls while the mesh is broken; proven with the symptoms, all others have to work. inside: of one cluster at least. one-way: across the border in one direction. both-ways: in both. none: all go on, and what breaks, breaks later."`
	Diagnose   []Step     `yaml:"diagnose" phase:"diagnose" doc:"Read-only steps that find the cause, each with its expected finding. A person can paste the command of each."`
	Later      *Later     `yaml:"later" doc:"What breaks only later, at the next restart or renewal, and is brought about here. It comes after the diagnosis."`
	WrongFixes []WrongFix `yaml:"wrong-fixes" doc:"What people try first. The engine proves that it does not heal the mesh."`
	Recover    []Step     `yaml:"recover" phase:"recover" doc:"What heals the mesh."`
	Healthy    Expect     `yaml:"healthy" phase:"healthy" doc:"Checks that hold together before the break and again after the recovery."`
	Always     []Step     `yaml:"always" phase:"always" doc:"Checks that are judged once, on the whole recording of the traffic."`

	Hints  []string `yaml:"hints" doc:"Help for a learner who is stuck, given one after the other."`
	SeenIn []string `yaml:"seen-in" doc:"Links to reports of the same failure in the wild."`
}

// App is a workload in one cluster ("client@cluster-a"), or, with no cluster, the service of that name
// that exists in several clusters ("echo").
type App struct {
	Name    string
	Cluster string
}

// UnmarshalText reads what String writes.
func (a *App) UnmarshalText(text []byte) error {
	a.Name, a.Cluster, _ = strings.Cut(string(text), "@")
	return nil
}

func (a App) String() string {
	if a.Cluster == "" {
		return a.Name
	}
	return a.Name + "@" + a.Cluster
}

// Stream is traffic that flows from before the break until the end of the scenario.
type Stream struct {
	Name        string      `yaml:"-"` // the key in the file
	From        App         `yaml:"from" ref:"app" required:"true" doc:"The app that calls, like client@cluster-a."`
	To          App         `yaml:"to" ref:"app-or-service" required:"true" doc:"Who is called: echo@cluster-b is that cluster's own instance, echo is the service, balanced over every cluster that has it."`
	Every       Duration    `yaml:"every" example:"50ms" required:"true" min:"10ms" max:"1m" doc:"Pause between the starts of two calls, 10ms to 1m."`
	Timeout     Duration    `yaml:"timeout" doc:"How long one call may take. Without it, the engine's default."`
	Connections Connections `yaml:"connections" enum:"fresh,reused" doc:"fresh (the default): a new connection per call, so every call proves trust. reused: connections are kept, as pooled clients do, and keep working after trust is gone; a call that is due while another is under way is left out, since it would need a new one."`
	Place       Place       `yaml:"-"`
}

// Connections says whether the calls of a stream share connections. Trust is checked at the
// handshake only, so a reused connection keeps working long after trust is gone.
type Connections string

// The ways to connect. A file that does not say gets Fresh.
const (
	Fresh  Connections = "fresh"
	Reused Connections = "reused"
)

// Expect is a list of checks that have to hold together within a time.
type Expect struct {
	Within Duration `yaml:"within" required:"true" doc:"How long the checks may take to hold, all together."`
	Expect []Step   `yaml:"expect" required:"true" doc:"The checks."`
	Place  Place    `yaml:"-"`
}

// WrongFix is something that people try first and that does not heal the mesh.
type WrongFix struct {
	Fix         string `yaml:"fix" required:"true" doc:"What people try, in a few words."`
	Why         string `yaml:"why" required:"true" doc:"Why people try it and why it cannot work."`
	Do          []Step `yaml:"do" required:"true" phase:"wrong-fixes" doc:"The steps of the wrong fix."`
	StillBroken []Step `yaml:"still-broken" phase:"symptoms" doc:"Checks that hold after the wrong fix. Without them, the symptoms are checked again."`
	Place       Place  `yaml:"-"`
}

// Later is the part of a failure that shows itself at the next restart or renewal only.
type Later struct {
	When   string   `yaml:"when" required:"true" doc:"What has to happen first, in a few words: istiod restarts."`
	Why    string   `yaml:"why" required:"true" doc:"Why it breaks then and not before."`
	Do     []Step   `yaml:"do" required:"true" phase:"later" doc:"The steps that bring it about."`
	Within Duration `yaml:"within" required:"true" doc:"How long the checks may take to hold, all together."`
	Radius Radius   `yaml:"blast-radius" enum:"none,inside,one-way,both-ways" doc:"Which streams lose calls then; see the scenario's own."`
	Expect []Step   `yaml:"expect" required:"true" phase:"later" doc:"Checks that hold together then."`
	Place  Place    `yaml:"-"`
}

// Radius says which calls a failure hits. Several words stand for all of them; nil says nothing.
type Radius []string

// The words of a Radius.
const (
	Nowhere  = "none"
	Inside   = "inside"
	OneWay   = "one-way"
	BothWays = "both-ways"
)

// RadiusVerb is the verb of the step that checks a blast radius. No file has it: it comes with
// blast-radius, and its Args are a Radius.
const RadiusVerb = "blast-radius"

// check is the step that proves a radius; none if the file says nothing of it.
func (r Radius) check(at Place) []Step {
	if len(r) == 0 {
		return nil
	}
	return []Step{{Verb: RadiusVerb, Args: r, Place: at}}
}

// Broken is what holds while the mesh is broken: the symptoms and the blast radius.
func (s *Scenario) Broken() Expect {
	e := s.Symptoms
	e.Expect = slices.Concat(e.Expect, s.Radius.check(s.Place))
	return e
}

// Then is what holds later.
func (l *Later) Then() Expect {
	return Expect{Within: l.Within, Expect: slices.Concat(l.Expect, l.Radius.check(l.Place)), Place: l.Place}
}

// Step is one verb with its arguments.
type Step struct {
	Verb  string
	Args  any // what Verb.New returned, filled from the file
	Place Place
}

// Phase is a part of a scenario that has steps.
type Phase string

// The phases, in the order they run. A scenario has either Break or Operate.
const (
	Break      Phase = "break"
	Operate    Phase = "operate"
	Symptoms   Phase = "symptoms"
	Diagnose   Phase = "diagnose"
	LaterOn    Phase = "later"
	WrongFixes Phase = "wrong-fixes"
	Recover    Phase = "recover"
	Healthy    Phase = "healthy"
	Always     Phase = "always"
)

// Phases returns all phases in the order they run.
func Phases() []Phase {
	return []Phase{Break, Operate, Symptoms, Diagnose, LaterOn, WrongFixes, Recover, Healthy, Always}
}

// PhaseSteps is one phase of one scenario.
type PhaseSteps struct {
	Phase  Phase
	Within Duration // for the checks of symptoms and healthy
	Steps  []Step
	Fix    *WrongFix // only for WrongFixes, which has one entry per wrong fix; Steps are its Do
	Later  *Later    // only for LaterOn; Steps are its Do
	Place  Place
}

// Phases are the phases that the scenario has, in the order they run.
func (s *Scenario) Phases() []PhaseSteps {
	var all []PhaseSteps
	add := func(p PhaseSteps) {
		if len(p.Steps) == 0 {
			return
		}
		if p.Place.Line == 0 {
			p.Place = p.Steps[0].Place
		}
		all = append(all, p)
	}
	add(PhaseSteps{Phase: Break, Steps: s.Break})
	add(PhaseSteps{Phase: Operate, Steps: s.Operate})
	add(PhaseSteps{Phase: Symptoms, Within: s.Symptoms.Within, Steps: s.Broken().Expect, Place: s.Symptoms.Place})
	add(PhaseSteps{Phase: Diagnose, Steps: s.Diagnose})
	if s.Later != nil {
		add(PhaseSteps{Phase: LaterOn, Steps: s.Later.Do, Later: s.Later, Place: s.Later.Place})
	}
	for i := range s.WrongFixes {
		fix := &s.WrongFixes[i]
		add(PhaseSteps{Phase: WrongFixes, Steps: fix.Do, Fix: fix, Place: fix.Place})
	}
	add(PhaseSteps{Phase: Recover, Steps: s.Recover})
	add(PhaseSteps{Phase: Healthy, Within: s.Healthy.Within, Steps: s.Healthy.Expect, Place: s.Healthy.Place})
	add(PhaseSteps{Phase: Always, Steps: s.Always})
	return all
}

// Has reports whether the scenario has a phase.
func (s *Scenario) Has(phase Phase) bool {
	return slices.ContainsFunc(s.Phases(), func(p PhaseSteps) bool { return p.Phase == phase })
}

// Stream returns the stream of that name.
func (s *Scenario) Stream(name string) (Stream, bool) {
	i := slices.IndexFunc(s.Traffic, func(t Stream) bool { return t.Name == name })
	if i < 0 {
		return Stream{}, false
	}
	return s.Traffic[i], true
}

// Clusters are names of clusters of the scenario: in the file one name or a list of them.
type Clusters []string
