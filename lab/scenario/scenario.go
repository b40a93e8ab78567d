// Package scenario is the scenario file and the topology file as data: their types, the loaders that name every problem
// with file, line and column, and the JSON Schemas that editors complete from.
//
// A scenario breaks (or operates) a mesh in a known way, proves the symptoms, shows the diagnosis, proves that the usual
// wrong fixes do not help, recovers, and proves health again. The package knows the shape of such a file but no verb: the
// table of verbs is a Vocabulary, which package verb hands in. Package strict reads the YAML. Nothing here touches a
// cluster: `eastwest lint FILE` needs only this package and the table.
package scenario

//go:generate go run ../strict/fielddocs

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/strict"
)

// Scenario is one scenario file, checked: every name in it refers to something that exists.
//
// The tags of this type and of those inside it are the file format: Parse reads by them, and Schema describes it by them.
// Package strict explains the tags.
type Scenario struct {
	File  string       `yaml:"-"` // the path it was loaded from
	Place strict.Place `yaml:"-"` // of the file's first field

	// The scenario's name, like remote-secret-revoked: the thing, then what happened to it. In a file called
	// scenario.yaml it is also the name of the folder.
	Name string `yaml:"scenario" required:"true" name:"kebab"`
	// One line that says what is wrong and what follows from it.
	Title string `yaml:"title" required:"true"`
	// The story for a learner: how this comes about and why it shows itself the way it does.
	Why string `yaml:"why" required:"true"`
	// Sections of the lesson that this scenario teaches.
	Lesson []string `yaml:"lesson"`

	// The versions of Istio that the scenario is about. It is skipped on a lab that was made with another one.
	Istio IstioRange `yaml:"istio" example:"'>= 1.31'"`
	// The mesh that the scenario needs.
	Topology Topology `yaml:"topology" example:"{kind: multi-primary}" required:"true"`
	// Workloads and the cluster each runs in, like client@cluster-a.
	Apps []App `yaml:"apps" ref:"workload" least:"0"`
	// Streams of calls by name. They start before the break, are recorded call by call, and flow until the end of the
	// scenario.
	Traffic []Stream `yaml:"traffic"`

	// What breaks the mesh. Exactly one of break and operate.
	Break []Step `yaml:"break" least:"1" phase:"break"`
	// A planned change that the mesh has to survive. Exactly one of break and operate; an empty list is a scenario that
	// only looks.
	Operate []Step `yaml:"operate" phase:"operate"`
	// Checks that hold together while the mesh is broken.
	Symptoms Expect `yaml:"symptoms" phase:"symptoms"`
	// Which streams lose calls while the mesh is broken; proven with the symptoms, all others have to work. inside: of
	// one cluster at least. one-way: across the border in one direction. both-ways: in both. none: all go on, and what
	// breaks, breaks later.
	Radius Radius `yaml:"blast-radius" enum:"none,inside,one-way,both-ways"`
	// Read-only steps that find the cause, each with its expected finding. A person can paste the command of each.
	Diagnose []Step `yaml:"diagnose" phase:"diagnose"`
	// What breaks only later, at the next restart or renewal, and is brought about here. It comes after the diagnosis.
	Later *Later `yaml:"later"`
	// What people try first. The engine proves that it does not heal the mesh.
	WrongFixes []WrongFix `yaml:"wrong-fixes"`
	// What heals the mesh.
	Recover []Step `yaml:"recover" phase:"recover"`
	// Checks that hold together before the break and again after the recovery.
	Healthy Expect `yaml:"healthy" phase:"healthy"`
	// Checks that are judged once, on the whole recording of the traffic.
	Always []Step `yaml:"always" phase:"always"`

	// Help for a learner who is stuck, given one after the other.
	Hints []string `yaml:"hints"`
	// Links to reports of the same failure in the wild.
	SeenIn []string `yaml:"seen-in"`
}

// App is a workload in one cluster ("client@cluster-a"), or, with no cluster, the service of that name
// that exists in several clusters ("echo").
type App struct {
	Name    string
	Cluster string
}

// UnmarshalText reads what String returns.
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
	Name string `yaml:"-"` // the key in the file
	// The app that calls, like client@cluster-a.
	From App `yaml:"from" ref:"app" required:"true"`
	// Who is called: echo@cluster-b is that cluster's own instance, echo is the service, balanced over every cluster
	// that has it.
	To App `yaml:"to" ref:"app-or-service" required:"true"`
	// Pause between the starts of two calls, 10ms to 1m.
	Every strict.Duration `yaml:"every" example:"50ms" required:"true" min:"10ms" max:"1m"`
	// How long one call may take. Without it, the engine's default.
	Timeout strict.Duration `yaml:"timeout"`
	// fresh (the default): a new connection per call, so every call proves trust. reused: connections are kept, as
	// pooled clients do, and keep working after trust is gone; a call that is due while another is under way is left
	// out, since it would need a new one.
	Connections Connections `yaml:"connections" enum:"fresh,reused"`
	// Each call is a long one: the app that is called answers after this time. Needs a longer timeout. A blast radius is
	// judged without such streams.
	AnswerAfter strict.Duration `yaml:"answer-after" example:"10s" max:"1m"`
	Place       strict.Place    `yaml:"-"`
}

// Validate finds calls that end before they are answered.
func (s Stream) Validate() error {
	if s.AnswerAfter == 0 || s.Timeout > s.AnswerAfter {
		return nil
	}
	p := strict.Problem{What: "no call lives until it is answered", Wanted: "a timeout longer than answer-after", Seen: "no timeout",
		Try: fmt.Sprintf("timeout: %s", 2*time.Duration(s.AnswerAfter))}
	if s.Timeout != 0 {
		p.Seen = "timeout: " + s.Timeout.String()
	}
	return strict.At("answer-after", p)
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
	// How long the checks may take to hold, all together.
	Within strict.Duration `yaml:"within" required:"true"`
	// The checks.
	Expect []Step       `yaml:"expect" required:"true"`
	Place  strict.Place `yaml:"-"`
}

// WrongFix is something that people try first and that does not heal the mesh.
type WrongFix struct {
	// What people try, in a few words.
	Fix string `yaml:"fix" required:"true"`
	// Why people try it and why it cannot work.
	Why string `yaml:"why" required:"true"`
	// The steps of the wrong fix.
	Do []Step `yaml:"do" required:"true" phase:"wrong-fixes"`
	// Checks that hold after the wrong fix. Without them, the symptoms are checked again.
	StillBroken []Step       `yaml:"still-broken" phase:"symptoms"`
	Place       strict.Place `yaml:"-"`
}

// Later is the part of a failure that shows itself at the next restart or renewal only.
type Later struct {
	// What has to happen first, in a few words: istiod restarts.
	When string `yaml:"when" required:"true"`
	// Why it breaks then and not before.
	Why string `yaml:"why" required:"true"`
	// The steps that bring it about.
	Do []Step `yaml:"do" required:"true" phase:"later"`
	// How long the checks may take to hold, all together.
	Within strict.Duration `yaml:"within" required:"true"`
	// Which streams lose calls then; see the scenario's own.
	Radius Radius `yaml:"blast-radius" enum:"none,inside,one-way,both-ways"`
	// Checks that hold together then.
	Expect []Step       `yaml:"expect" required:"true" phase:"later"`
	Place  strict.Place `yaml:"-"`
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

// check returns the step that proves a radius, or none if the file does not give one.
func (r Radius) check(at strict.Place) []Step {
	if len(r) == 0 {
		return nil
	}
	return []Step{{Verb: RadiusVerb, Args: r, Place: at}}
}

// Broken returns what holds while the mesh is broken: the symptoms and the blast radius.
func (s *Scenario) Broken() Expect {
	e := s.Symptoms
	e.Expect = slices.Concat(e.Expect, s.Radius.check(s.Place))
	return e
}

// Then returns what holds later.
func (l *Later) Then() Expect {
	return Expect{Within: l.Within, Expect: slices.Concat(l.Expect, l.Radius.check(l.Place)), Place: l.Place}
}

// Step is one verb with its arguments.
type Step struct {
	Verb  string
	Args  any // what Verb.New returned, filled from the file
	Place strict.Place
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
	Within strict.Duration // for the checks of symptoms and healthy
	Steps  []Step
	Fix    *WrongFix // only for WrongFixes, which has one entry per wrong fix; Steps are its Do
	Later  *Later    // only for LaterOn; Steps are its Do
	Place  strict.Place
}

// Phases returns the phases that the scenario has, in the order they run.
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
