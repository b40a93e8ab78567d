package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"google.golang.org/grpc/grpclog"
	"k8s.io/klog/v2"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/embedded"
	"github.com/eastwest-lab/eastwest/lab/cluster/existing"
	"github.com/eastwest-lab/eastwest/lab/cluster/kind"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// The providers by name.
const (
	Auto     = "auto"
	Embedded = "embedded"
	Kind     = "kind"
	Existing = "existing"
)

// provider is one row of the table of providers.
type provider struct {
	name string
	// available reports whether the provider can be used here. Auto takes the first provider that can.
	available func(context.Context) cluster.State
	settings  func() cluster.Settings // returns new settings with their default values
	cpus      int                     // that one lab keeps busy while it is made or used
	help      string                  // a paragraph for `eastwest up --help`
	supervise func()                  // see Supervise; nil if nodes do not run this program
}

// providers is the table. Everything else in this package asks it, or the settings that it leads to.
var providers = []provider{
	{Embedded, embedded.Available, func() cluster.Settings { return &embedded.Settings{} }, 1, embedded.Help, embedded.Supervise},
	// Two labs side by side on two CPUs took longer than one after the other, and lost calls that nothing had broken.
	{Kind, kind.Available, func() cluster.Settings { return &kind.Settings{} }, 2, kind.Help, kind.Supervise},
	{Existing, existing.Available, func() cluster.Settings { return &existing.Settings{} }, 1, existing.Help, nil},
}

// Supervise turns this process into the part of a node that is this program, such as the supervisor of an embedded node, if it
// was started as that. Then it never returns. Programs that make labs call it first.
//
// Otherwise it ends the messages that client-go and grpc write to standard error for the whole process, between the lines of
// the program: what comes of a slow API server or a lost connection is in the errors of this package.
func Supervise() {
	for _, p := range providers {
		if p.supervise != nil {
			p.supervise()
		}
	}
	// Discarding klog's output would leave the errors in: those go to standard error in any case.
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
}

// Providers lists the values of --provider.
func Providers() []string { return append([]string{Auto}, namesOf(providers)...) }

// Makers lists the providers that make clusters of their own.
func Makers() []string {
	return namesOf(slices.DeleteFunc(slices.Clone(providers), func(p provider) bool { return isGuest(p.settings()) }))
}

func namesOf(all []provider) []string {
	var list []string
	for _, p := range all {
		list = append(list, p.name)
	}
	return list
}

// ProvidersHelp explains each provider in a paragraph.
func ProvidersHelp() string {
	var all []string
	for _, p := range providers {
		all = append(all, p.help)
	}
	return strings.Join(all, "\n\n")
}

// providerNamed returns the provider's row of the table.
func providerNamed(name string) (provider, error) {
	i := slices.IndexFunc(providers, func(p provider) bool { return p.name == name })
	if i < 0 {
		return provider{}, fmt.Errorf("unknown provider %q: there are %s", name, words.And(Providers()))
	}
	return providers[i], nil
}

// CPUs returns how many CPUs of this machine one lab of the provider keeps busy.
func CPUs(name string) int {
	p, err := providerNamed(name)
	if err != nil {
		return 1
	}
	return p.cpus
}

// Available returns nil, or why the provider cannot be used on this machine and what to do about it.
func Available(ctx context.Context, name string) error {
	p, err := providerNamed(name)
	if err != nil {
		return err
	}
	return p.available(ctx).Err()
}

// ChooseProvider returns the provider that Auto, or an empty name, stands for on this machine. It returns any other name as it
// is. If no provider can be used here, the error says for each of them what it needs.
func ChooseProvider(ctx context.Context, name string) (string, error) {
	if name != Auto && name != "" {
		return name, nil
	}
	problems := []error{errors.New("no provider works here:")}
	for _, p := range providers {
		err := p.available(ctx).Err()
		if err == nil {
			return p.name, nil
		}
		problems = append(problems, fmt.Errorf("  %-8s  %w", p.name, err))
	}
	return "", &SetupError{Err: errors.Join(problems...)}
}

func isGuest(s cluster.Settings) bool {
	_, ok := s.(cluster.Guest)
	return ok
}

// adopts reports whether the lab uses a mesh that somebody else has made.
func adopts(s cluster.Settings) bool {
	guest, ok := s.(cluster.Guest)
	return ok && guest.Adopts()
}

// pulls returns the published images of the mesh, or the zero value if its nodes have the bundle's.
func pulls(s cluster.Settings) cluster.Images {
	if puller, ok := s.(cluster.Puller); ok {
		return puller.Pulls()
	}
	return cluster.Images{}
}
