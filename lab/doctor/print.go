package doctor

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"text/tabwriter"
)

// Table writes a report for people who read a terminal.
func Table(w io.Writer, r Report) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CLUSTER\tNAME IN THE MESH\tNETWORK\tSERVED BY\tPROXIES\tCERTIFICATES READ")
	for _, c := range r.Clusters {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\n", c.Context, dash(c.ID), dash(c.Network), dash(c.ServedBy), c.Proxies, c.sample())
	}
	_ = t.Flush() // a Builder takes everything
	if len(r.Trust) > 0 {
		fmt.Fprint(&b, "\n")
		fmt.Fprintln(t, "CALLS FROM\tTO\tCERTIFICATES ACCEPTED\tWHY NOT")
		for _, p := range r.Trust {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.From, p.To, p.Works, dash(strings.Join(nonempty(p.Why, p.Grow), "; ")))
		}
		_ = t.Flush() // a Builder takes everything
	}
	if len(r.Identities) > 0 {
		fmt.Fprint(&b, "\n")
		fmt.Fprintln(t, "IN\tWHO\tSIGNED BY\tROOTS IN USE\tFIRST TO END")
		for _, h := range r.Holders() {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", h.Cluster, h.Who, h.Issuer, h.Roots, h.Ends)
		}
		_ = t.Flush() // a Builder takes everything
	}
	if len(r.Reads) > 0 {
		fmt.Fprint(&b, "\n")
		fmt.Fprintln(t, "ISTIOD OF\tREADS\tBY\tSTATUS\tENDPOINTS\tGATEWAYS OF ITS NETWORK")
		for _, k := range r.Reads {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", k.Istiod, k.Cluster, k.By(r.Taken), dash(k.Status), k.Knows(), dash(strings.Join(k.Gateways, ", ")))
		}
		_ = t.Flush() // a Builder takes everything
	}
	for _, f := range r.Findings {
		f.print(&b)
	}
	counts := map[State]int{}
	for _, c := range r.Checks {
		counts[c.State]++
	}
	fmt.Fprintf(&b, "\n%d checks: %d ok, %d with findings, %d unknown\n", len(r.Checks), counts[OK], counts[Found], counts[Unsure])
	for _, u := range r.Unread {
		fmt.Fprintf(&b, "  could not read %s of %s%s: %s\n    which leaves unknown: %s\n", u.Part, u.Cluster, prefixed(" in ", u.Object), u.Why, some(r.Lost(u.Part)))
	}
	if len(r.Findings) == 0 && len(r.Unread) == 0 {
		fmt.Fprintln(&b, "nothing is wrong")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s Seen) sample() string {
	if s.Sampled == s.Ready {
		return fmt.Sprintf("of all %d that are Ready", s.Ready)
	}
	return fmt.Sprintf("of %d of %d: the oldest and the newest pod of each workload, as many as the limit lets through", s.Sampled, s.Ready)
}

// Lost names the checks that are unknown for the want of a part.
func (r Report) Lost(part Part) (ids []string) {
	for _, c := range r.Checks {
		if c.State == Unsure && strings.Contains(c.Why, string(part)+" of ") {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

func (f Finding) print(b *strings.Builder) {
	fmt.Fprintf(b, "\n%s  %s: %s\n", strings.ToUpper(string(f.Severity)), f.ID, f.Says)
	for _, e := range f.Evidence {
		fmt.Fprintf(b, "  seen    %s: %s\n", e.Object, e.Seen)
		if e.Command != "" {
			fmt.Fprintf(b, "          $ %s\n", e.Command)
		}
	}
	fmt.Fprintf(b, "  now     %s\n  later   %s\n  fix     %s\n          does it lose calls? %s\n", f.Now, f.Later, f.Fix, f.Disrupts)
	for _, e := range f.Effects {
		fmt.Fprintf(b, "  from it %s: %s\n", e.ID, e.Says)
	}
}

// Explain writes what is documented of a kind of finding.
func (k Kind) Explain(w io.Writer) error {
	text := fmt.Sprintf("%s (%s): %s\n\n  looks at  %s\n  now       %s\n  later     %s\n  fix       %s\n            does it lose calls? %s\n", k.ID, k.Severity, k.Title, k.What, k.Now, k.Later, k.Fix, k.Disrupts)
	if len(k.Needs) > 0 {
		var parts []string
		for _, p := range k.Needs {
			parts = append(parts, string(p))
		}
		text += "  reads     " + words(parts) + "\n"
	}
	if len(k.CausedBy) > 0 {
		text += "  may come from " + words(k.CausedBy) + "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

//go:embed report.html
var page string

// HTML writes a report as one file that needs nothing else.
func HTML(w io.Writer, r Report) error {
	t, err := template.New("report").Funcs(template.FuncMap{"lost": r.Lost, "words": words}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, r)
}

func dash(s string) string { return cmp.Or(s, "-") }

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func nonempty(list ...string) (all []string) {
	for _, s := range list {
		if s != "" {
			all = append(all, s)
		}
	}
	return all
}
