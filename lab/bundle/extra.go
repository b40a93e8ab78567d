package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// extra is a part that only some labs need. It is a bundle of its own beside the other one, which is the same with and without it.
type extra struct {
	name       string // of BuildOptions.With; a bundle file has its files below a folder of this name, after the rest
	holds      string // the end of "the part of the bundle"
	components []component
}

// extras is the table of them, in the order in which they are built and exported.
func extras() []extra {
	all := []extra{{name: kindPart, holds: "for kind", components: kindRecipes()}}
	for _, v := range istioVersions {
		if v.name != Current {
			all = append(all, extra{name: v.module, holds: "with Istio " + v.tag, components: v.recipes()})
		}
	}
	return all
}

// ExtraNames lists what BuildOptions.With may hold.
func ExtraNames() []string {
	names := []string{kindPart}
	for _, v := range istioVersions {
		if v.name != Current {
			names = append(names, v.module)
		}
	}
	return names
}

// extrasOf returns those of the table that have one of the names, in the order of the table.
func extrasOf(names []string) ([]extra, error) {
	for _, name := range names {
		if !slices.Contains(ExtraNames(), name) {
			return nil, fmt.Errorf("building bundle: there is no part %q: wanted %s", name, strings.Join(ExtraNames(), ", "))
		}
	}
	return slices.DeleteFunc(extras(), func(e extra) bool { return !slices.Contains(names, e.name) }), nil
}

// prefix is where a bundle file holds its files; those of the bundle itself are at the top.
func (e extra) prefix() string {
	if e.name == "" {
		return ""
	}
	return e.name + "/"
}

// what names it in messages.
func (e extra) what() string {
	if e.name == "" {
		return "the bundle"
	}
	return "the part of the bundle " + e.holds
}

// buildCommand is what makes the bundle and the extras of these names whole.
func buildCommand(extras ...string) string {
	extras = slices.DeleteFunc(slices.Clone(extras), func(name string) bool { return name == "" })
	if len(extras) == 0 {
		return "eastwest bundle build"
	}
	return "eastwest bundle build --with " + strings.Join(extras, ",")
}

// found is an extra beside a bundle.
type found struct {
	extra
	bundle  *Bundle // nil where it was never built
	problem error   // why what was built cannot be read
}

// find looks for extras. Labs run without them, so what they lack is told by Verify and by those who ask for them.
func find(dir string, extras []extra) []found {
	all := make([]found, len(extras))
	for i, e := range extras {
		all[i].extra = e
		b, err := read(dir, e)
		switch {
		case err == nil:
			all[i].bundle = b
		case !errors.Is(err, fs.ErrNotExist):
			all[i].problem = err
		}
	}
	return all
}

// extra returns the extra of that name as it was built, or nil.
func (b *Bundle) extra(name string) *Bundle {
	for _, f := range b.extras {
		if f.name == name {
			return f.bundle
		}
	}
	return nil
}

// whole returns the extra of that name, nil where it was never built, or in what way what was built is damaged. Like Open it
// looks at sizes only.
func (b *Bundle) whole(name string) (*Bundle, error) {
	for _, f := range b.extras {
		if f.name != name {
			continue
		}
		if f.bundle == nil {
			return nil, f.problem
		}
		return f.bundle, f.bundle.look()
	}
	return nil, nil
}

// look returns nil, or what can be seen of damage without reading the files.
func (b *Bundle) look() error {
	for _, f := range b.manifest.Files {
		if p := f.look(b.root); p != nil {
			return b.damaged(*p)
		}
	}
	return nil
}
