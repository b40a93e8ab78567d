package lab

import "context"

// Check returns nil, or why Up cannot make a lab with these options on this machine, or find it. It makes nothing, and
// needs no bundle.
func Check(ctx context.Context, o Options) error {
	topology, err := o.check()
	if err != nil {
		return err
	}
	wanted, there, err := o.decide(ctx)
	if err != nil {
		return err
	}
	if there != nil && there.Complete {
		return nil // it could be made here; Up checks again if it has to be made anew
	}
	if err := o.provider(wanted, topology, nil, nil).Check(ctx); err != nil {
		return &SetupError{Err: err}
	}
	return nil
}
