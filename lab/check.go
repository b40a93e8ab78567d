package lab

import "context"

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
	name, err := chooseProvider(ctx, o.Provider)
	if err != nil {
		return err
	}
	if err := o.Images.check(name); err != nil {
		return err
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
