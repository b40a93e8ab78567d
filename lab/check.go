package lab

import (
	"context"
	"fmt"
)

// Check returns nil, or why a lab with these options cannot be made on this machine. It makes nothing,
// and needs no bundle.
func Check(ctx context.Context, o Options) error {
	if err := checkName(o.Name); err != nil {
		return err
	}
	if _, err := meshTopology(o.Topology); err != nil {
		return err
	}
	o = o.settled()
	name, err := ChooseProvider(ctx, o.Provider)
	if err != nil {
		return err
	}
	if err := o.fits(name); err != nil {
		return err
	}
	if r, err := readRecord(o.Home, o.Name); err == nil && r.Complete {
		return nil // it was made here; Up asks again if it has to be made anew
	}
	p, err := newProvider(name, o.Home, nil, o)
	if err != nil {
		return err
	}
	if err := p.Check(ctx); err != nil {
		return &SetupError{Err: err}
	}
	return nil
}

// fits returns an error that is about the command line: the options are not for the provider.
func (o Options) fits(provider string) error {
	if o.KindImage != "" && provider != Kind {
		return fmt.Errorf("--kind-image: wanted --provider %s with it, not %s", Kind, provider)
	}
	return o.Images.check(provider)
}
