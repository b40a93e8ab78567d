package doctor

import (
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/eastwest-lab/eastwest/lab/doctor/exam"
	"github.com/eastwest-lab/eastwest/lab/doctor/findings"
	"github.com/eastwest-lab/eastwest/lab/look"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// Table writes a report for people who read a terminal.
func Table(w io.Writer, r Report) error {
	var b strings.Builder
	table := func(head string, rows [][]string) {
		if len(rows) == 0 {
			return
		}
		if b.Len() > 0 {
			b.WriteString("\n")
		}
		t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, head)
		for _, cells := range rows {
			for i := range cells {
				cells[i] = cmp.Or(cells[i], "-")
			}
			fmt.Fprintln(t, strings.Join(cells, "\t"))
		}
		_ = t.Flush() // a Builder takes everything
	}
	var rows [][]string
	for _, c := range r.Clusters {
		rows = append(rows, []string{c.Context, c.ID, c.Network, c.ServedBy, strconv.Itoa(c.Proxies), sample(c)})
	}
	table("CLUSTER\tNAME IN THE MESH\tNETWORK\tSERVED BY\tPROXIES\tCERTIFICATES READ", rows)
	rows = nil
	for _, p := range r.Trust {
		rows = append(rows, []string{p.From, p.To, string(p.Works), strings.Join(nonempty(p.Why, p.Grow), "; ")})
	}
	table("CALLS FROM\tTO\tCERTIFICATES ACCEPTED\tWHY NOT", rows)
	rows = nil
	for _, h := range holders(r) {
		rows = append(rows, []string{h.cluster, h.who, h.issuer, h.roots, h.ends})
	}
	table("IN\tWHO\tSIGNED BY\tROOTS IN USE\tFIRST TO END", rows)
	rows = nil
	for _, k := range r.Reads {
		istiod := strings.Join(nonempty(k.Istiod, k.Revision), " ")
		rows = append(rows, []string{istiod, k.Cluster, readsBy(k, r.Taken), k.Status, knows(k), strings.Join(k.Gateways, ", ")})
	}
	table("ISTIOD OF\tREADS\tBY\tSTATUS\tENDPOINTS\tGATEWAYS OF ITS NETWORK", rows)
	for _, f := range r.Findings {
		printFinding(&b, f)
	}
	printChecks(&b, r)
	_, err := io.WriteString(w, b.String())
	return err
}

func printFinding(b *strings.Builder, f exam.Finding) {
	fmt.Fprintf(b, "\n%s  %s: %s\n", strings.ToUpper(string(f.Severity)), f.ID, f.Says)
	for _, e := range f.Evidence {
		fmt.Fprintf(b, "  seen    %s: %s\n", e.Object, e.Seen)
		if e.Command != "" {
			fmt.Fprintf(b, "          $ %s\n", e.Command)
		}
	}
	fmt.Fprintf(b, "  now     %s\n  later   %s\n  fix     %s\n          does it lose calls? %s\n", f.Now, f.Later, f.Fix, f.Disrupts)
	for _, e := range f.Effects {
		fmt.Fprintf(b, "  causes  %s: %s\n", e.ID, e.Says)
	}
}

func printChecks(b *strings.Builder, r Report) {
	counts := map[exam.State]int{}
	for _, c := range r.Checks {
		counts[c.State]++
	}
	fmt.Fprintf(b, "\n%s: %d ok, %d with findings, %d unknown\n",
		words.Plural(len(r.Checks), "check"), counts[exam.StateOK], counts[exam.StateFound], counts[exam.StateUnknown])
	for _, u := range r.Unread {
		object := ""
		if u.Object != "" {
			object = " (" + u.Object + ")"
		}
		fmt.Fprintf(b, "  could not read %s of %s%s: %s\n", u.Part, u.Cluster, object, u.Why)
		if lost := r.Lost(u.Part); len(lost) > 0 {
			fmt.Fprintf(b, "    so these are unknown: %s\n", words.Some(lost, 4))
		}
	}
	if len(r.Findings) == 0 && len(r.Unread) == 0 {
		fmt.Fprintln(b, "nothing is wrong")
	}
}

// sample says of how many proxies of a cluster the certificates were read.
func sample(c exam.Seen) string {
	if c.Sampled == c.Ready {
		return fmt.Sprintf("of all %d that are Ready", c.Ready)
	}
	return fmt.Sprintf("of %d of %d: the oldest and the newest pod of each workload, up to the limit", c.Sampled, c.Ready)
}

// holder is a set of proxies and istiods of a cluster whose certificates have the same issuer and who trust the same roots.
type holder struct {
	cluster, issuer, roots string
	who, ends              string // set at the end
}

// holders summarizes the identities of a report.
func holders(r Report) (all []holder) {
	text := func(d exam.Dated) string {
		if d.SHA256 == "" {
			return fmt.Sprintf("%q", d.Name)
		}
		return fmt.Sprintf("%q (%s)", d.Name, d.SHA256[:8])
	}
	members := map[holder][]exam.Identity{}
	for _, i := range r.Identities {
		var roots []string
		for _, d := range i.Roots {
			roots = append(roots, text(d))
		}
		h := holder{cluster: i.Cluster, issuer: text(i.Issuer), roots: strings.Join(roots, ", ")}
		if members[h] == nil {
			all = append(all, h)
		}
		members[h] = append(members[h], i)
	}
	for n, h := range all {
		its := members[h]
		first := its[0].FirstToEnd()
		for _, i := range its {
			if d := i.FirstToEnd(); d.Ends.Before(first.Ends) {
				first = d
			}
		}
		all[n].who = its[0].Who
		if len(its) > 1 {
			all[n].who += fmt.Sprintf(", and %d more", len(its)-1)
		}
		all[n].ends = first.Name + " " + until(first.Ends.Sub(r.Taken))
	}
	return all
}

func until(d time.Duration) string {
	if d < 0 {
		return words.Age(d) + " ago"
	}
	return "in " + words.Age(d)
}

// readsBy names the remote secret with which an istiod reads a cluster, and its age.
func readsBy(r exam.Reads, now time.Time) string {
	if r.Secret == "" {
		return ""
	}
	text := fmt.Sprintf("%s, made %s ago", r.Secret, words.Age(now.Sub(r.Created)))
	if !r.Expires.IsZero() {
		text += ", its token expires " + until(r.Expires.Sub(now))
	}
	return text
}

// knows counts the endpoints of a cluster that an istiod knows.
func knows(r exam.Reads) string {
	n := 0
	for _, endpoints := range r.Endpoints {
		n += endpoints
	}
	if r.Own < 0 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%d of %d", n, r.Own)
}

func nonempty(list ...string) (all []string) {
	for _, s := range list {
		if s != "" {
			all = append(all, s)
		}
	}
	return all
}

// Explain writes the documentation of a finding.
func Explain(w io.Writer, d findings.Doc) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s): %s\n\n", d.ID, d.Severity, d.Title)
	line := func(name, text string) { fmt.Fprintf(&b, "  %-9s %s\n", name, text) }
	line("looks at", d.What)
	line("now", d.Now)
	if d.Partly != nil {
		line("", fmt.Sprintf("If the cluster has other gateways that work (%s): %s", d.Partly.Severity, d.Partly.Now))
	}
	line("later", d.Later)
	line("fix", d.Fix)
	line("", "does it lose calls? "+d.Disrupts)
	if len(d.Needs) > 0 {
		var parts []string
		for _, p := range d.Needs {
			parts = append(parts, string(p))
		}
		line("reads", words.And(parts))
	}
	if len(d.CausedBy) > 0 {
		fmt.Fprintf(&b, "  may be caused by %s\n", words.Or(d.CausedBy))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

//go:embed report.html
var page string

// HTML writes a report as one file that needs nothing else.
func HTML(w io.Writer, r Report) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"lost": r.Lost, "list": words.And, "reads": readsBy, "knows": knows, "style": look.Style,
		"policy": func() string { return look.Policy() },
		"mesh":   func(r Report) (template.HTML, error) { return look.Pictures(picture(r)) },
	}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, r)
}

// picture shows who has which roots in use, and which calls are accepted. Without identities there is nothing to show.
func picture(r Report) []look.Mesh {
	m := look.Mesh{Title: "Roots in use"}
	for _, c := range r.Clusters {
		cluster := look.Cluster{Name: c.Context, Note: c.Network}
		for _, i := range r.Identities {
			if i.Cluster != c.Context {
				continue
			}
			h := look.Holder{Name: i.Who, Tip: "signed by " + i.Issuer.Name}
			for _, root := range i.Roots {
				h.Roots = append(h.Roots, fmt.Sprintf("%s (%s)", root.Name, root.SHA256[:min(len(root.SHA256), 8)]))
			}
			if len(i.Chain) > 0 {
				first := i.FirstToEnd()
				h.Tip += fmt.Sprintf("; the first of its certificates to end: %s %s", cmp.Or(first.Name, "its own"), until(first.Ends.Sub(r.Taken)))
			}
			cluster.Holders = append(cluster.Holders, h)
		}
		m.Clusters = append(m.Clusters, cluster)
	}
	if len(r.Identities) == 0 {
		return nil
	}
	for _, p := range r.Trust {
		bad := p.Works != exam.WorksAll && p.Works != exam.WorksUnknown
		m.Wires = append(m.Wires, look.Wire{From: p.From, To: p.To, Says: "certificates accepted: " + string(p.Works), Bad: bad})
	}
	return []look.Mesh{m}
}
