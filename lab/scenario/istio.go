package scenario

import (
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/eastwest-lab/eastwest/lab/strict"
)

// IstioRange is the versions of Istio that a scenario is about, like ">= 1.31" or ">= 1.30, < 1.32". The zero value is all
// versions.
type IstioRange struct {
	Place strict.Place

	text        string
	constraints *semver.Constraints
}

// UnmarshalText reads what String returns.
func (r *IstioRange) UnmarshalText(text []byte) error {
	constraints, err := semver.NewConstraint(string(text))
	if err != nil || strings.TrimSpace(string(text)) == "" {
		return strict.Problem{What: "not a range of versions", Wanted: "comparisons with a comma between them, like >= 1.30, < 1.32",
			Seen: strict.Quote(string(text)), Try: `istio: ">= 1.31"`}
	}
	r.text, r.constraints = string(text), constraints
	return nil
}

func (r IstioRange) String() string { return r.text }

// Has reports whether a version is in the range. Of the tag of an image, like 1.31-eed52ebb66ad, what comes before the hyphen
// counts. What is no version is in no range but the zero one.
func (r IstioRange) Has(version string) bool {
	if r.constraints == nil {
		return true
	}
	number, _, _ := strings.Cut(version, "-")
	v, err := semver.NewVersion(number)
	return err == nil && r.constraints.Check(v)
}
