package page

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/eastwest-lab/eastwest/lab/look"
	"github.com/eastwest-lab/eastwest/lab/report"
)

// meshesOf returns the mesh as it is known at several moments: of each phase in which a check has read what the proxies trust, and,
// after a failure, proxy by proxy from the evidence.
func meshesOf(events []report.Event, kept evidence) (all []look.Mesh) {
	for _, e := range events {
		if e.Type != report.StepEnded {
			continue
		}
		m := look.Mesh{Title: e.Phase, Clusters: trusted(e.Seen)}
		if len(m.Clusters) == 0 {
			continue
		}
		if heading := report.PhaseTitle(e.Phase); heading != "" {
			m.Title += ": " + heading
		}
		if n := len(all); n > 0 && all[n-1].Title == m.Title {
			for _, c := range m.Clusters { // the last of a phase is the picture of it
				if i := slices.IndexFunc(all[n-1].Clusters, func(o look.Cluster) bool { return o.Name == c.Name }); i >= 0 {
					all[n-1].Clusters[i] = c
				} else {
					all[n-1].Clusters = append(all[n-1].Clusters, c)
				}
			}
			continue
		}
		all = append(all, m)
	}
	if len(kept.clusters) > 0 {
		all = append(all, look.Mesh{Title: "after the failure, from the evidence", Clusters: kept.clusters})
	}
	return all
}

var (
	separator = regexp.MustCompile(`, | and `)
	whole     = regexp.MustCompile(`^(\S+) \((all \d+ proxies)\)$`)
	lastPod   = regexp.MustCompile(`^(\S+) in (\S+)$`)
	podName   = regexp.MustCompile(`^\S+$`)
	rootNamed = regexp.MustCompile(`^("(?:[^"\\]|\\.)+") \(SHA-256 ([0-9A-F:]{11})…\)(?:, | and |$)`)
)

// trusted reads what the check `roots-in-use` has seen:
//
//	cluster-a (all 4 proxies) and echo-2 in cluster-b: trusts "x" (SHA-256 8D:E0:A6:A7…); client-2 in cluster-b: trusts …
//
// What it does not understand would be missing in the picture: then there is none.
func trusted(seen string) (clusters []look.Cluster) {
	for _, part := range strings.Split(seen, "; ") {
		who, what, found := strings.Cut(part, ": trusts ")
		if !found {
			continue
		}
		roots, understood := rootsIn(what)
		if !understood {
			return nil
		}
		add := func(cluster, name string) {
			holder := look.Holder{Name: name, Roots: roots, Tip: "trusts " + cmp.Or(strings.Join(roots, " and "), "nobody")}
			if i := slices.IndexFunc(clusters, func(c look.Cluster) bool { return c.Name == cluster }); i >= 0 {
				clusters[i].Holders = append(clusters[i].Holders, holder)
			} else {
				clusters = append(clusters, look.Cluster{Name: cluster, Holders: []look.Holder{holder}})
			}
		}
		var pods []string // whose cluster comes with the last of them
		for _, one := range separator.Split(who, -1) {
			all, last := whole.FindStringSubmatch(one), lastPod.FindStringSubmatch(one)
			switch {
			case all != nil && len(pods) == 0:
				add(all[1], all[2])
			case last != nil:
				for _, pod := range append(pods, last[1]) {
					add(last[2], pod)
				}
				pods = nil
			case podName.MatchString(one):
				pods = append(pods, one)
			default:
				return nil
			}
		}
		if len(pods) > 0 {
			return nil
		}
	}
	return clusters
}

// rootsIn reads a list of roots as pki.Labels writes it.
func rootsIn(list string) (roots []string, understood bool) {
	if list == "nobody" {
		return nil, true
	}
	for list != "" {
		m := rootNamed.FindStringSubmatch(list)
		if m == nil {
			return nil, false
		}
		name, err := strconv.Unquote(m[1])
		if err != nil {
			return nil, false
		}
		roots = append(roots, rootName(name, m[2]))
		list = list[len(m[0]):]
	}
	return roots, len(roots) > 0
}

func rootName(name, sum string) string { return fmt.Sprintf("%s (%s)", name, sum[:min(len(sum), 11)]) }

var (
	holderLine = regexp.MustCompile(`^(\S+) in namespace (\S+), made `)
	certLine   = regexp.MustCompile(`^\s+(.*?), (self-signed|signed by .*?), until (\S+?), sha256 (\S+)`)
	commonName = regexp.MustCompile(`(?:^|[ ,+])CN=((?:[^,+\\]|\\.)+)`)
)

// nameIn is the common name in a subject, as pki.Name: a subject without one stands for itself.
func nameIn(subject string) string {
	if m := commonName.FindStringSubmatch(subject); m != nil {
		return strings.Clone(m[1])
	}
	return strings.Clone(subject)
}

// holdersOf reads certificates.txt.
func holdersOf(text string) (holders []look.Holder) {
	trusts := false
	for line := range strings.Lines(text) {
		if m := holderLine.FindStringSubmatch(line); m != nil {
			holders = append(holders, look.Holder{Name: m[2] + "/" + m[1]})
			continue
		}
		if len(holders) == 0 {
			continue // the roots in the Secret
		}
		h := &holders[len(holders)-1]
		switch strings.TrimSpace(line) {
		case "trusts:":
			trusts = true
			continue
		case "shows:":
			trusts = false
			continue
		}
		m := certLine.FindStringSubmatch(line)
		switch {
		case m == nil:
		case trusts:
			h.Roots = append(h.Roots, rootName(nameIn(m[1]), m[4]))
		case h.Tip == "": // its own certificate comes first
			signer := m[2]
			if by, found := strings.CutPrefix(signer, "signed by "); found {
				signer = "signed by " + nameIn(by)
			}
			h.Tip = fmt.Sprintf("%s, %s, ends %s", nameIn(m[1]), signer, m[3])
		}
	}
	return holders
}
