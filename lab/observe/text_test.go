package observe

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/traffic"
)

func TestCallsReadAsSentences(t *testing.T) {
	like := regexp.MustCompile
	to := Workload{"echo", "cluster-b"}
	for _, test := range []struct {
		call             Call
		sentence, wanted string
	}{
		{
			Call{To: to}, "5 calls are answered by cluster-b over mutual TLS",
			"5 calls to echo@cluster-b to be answered by cluster-b over mutual TLS",
		},
		{
			Call{To: to, Count: 1}, "1 call is answered by cluster-b over mutual TLS",
			"1 call to echo@cluster-b to be answered by cluster-b over mutual TLS",
		},
		{
			Call{To: to, Count: 20, AtLeast: 9, Plaintext: true}, "at least 9 of 20 calls are answered by cluster-b in plain text",
			"at least 9 of 20 calls to echo@cluster-b to be answered by cluster-b in plain text",
		},
		{
			Call{To: to, Count: 20, AtLeast: 1, Fails: like(`UF\d`)}, `at least 1 of 20 calls fails with a text like "UF\d"`,
			`at least 1 of 20 calls to echo@cluster-b to fail with a text like "UF\d"`,
		},
		{Call{To: to, Fails: like("UF")}, `5 calls fail with a text like "UF"`, `5 calls to echo@cluster-b to fail with a text like "UF"`},
		{
			Call{To: to, Count: 1, Fails: like("UF")}, `1 call fails with a text like "UF"`,
			`1 call to echo@cluster-b to fail with a text like "UF"`,
		},
		{
			Call{To: Workload{App: "echo"}, AnsweredBy: []string{"a", "b"}, Client: like("^c"), Server: like("^s")},
			`5 calls are answered by a and b over mutual TLS, the client known as "^c", the server known as "^s"`,
			`5 calls to echo to be answered by a and b over mutual TLS, the client known as "^c", the server known as "^s"`,
		},
	} {
		test.call.From = Workload{"client", "cluster-a"}
		require.Equal(t, test.sentence+", from client@cluster-a to "+test.call.target()+", on fresh connections", test.call.String())
		_, err := test.call.judge([]traffic.Call{{Issued: true, Code: 404}})
		var mismatch *Mismatch
		require.ErrorAs(t, err, &mismatch)
		require.Equal(t, test.wanted, mismatch.Wanted)
	}
}

// A log's line ends where its text ends, for the check as for grep.
func TestMatchingLines(t *testing.T) {
	const text = "first ready\nsecond ready\r\nthird ready now\n"
	lines, last := matching(text, regexp.MustCompile(`ready$`))
	require.Equal(t, 2, lines)
	require.Equal(t, "second ready", last)
	lines, _ = matching(text, regexp.MustCompile(`^$`))
	require.Zero(t, lines, "the end of the text is no line")
}

// What is printed finds in a shell what the check finds.
func TestPrintedCommandsFindTheSameLines(t *testing.T) {
	if err := exec.Command("sh", "-c", "echo x | grep -q -P x").Run(); err != nil {
		t.Skip("needs a grep with -P: install GNU grep")
	}
	const text = "it's 12 o'clock\nTLS error\nssl.fail_verify_error: 3\nsslxfail_verify_error: 3\n-dash \"x\" $HOME `date`\n"
	for _, pattern := range []string{
		`it's \d+ o'clock`, `(?i)tls ERROR$`, `ssl\.fail_verify_error`, `^-dash "x" \$HOME`, "`date`$", `a|clock`,
	} {
		p := regexp.MustCompile(pattern)
		wanted := 0
		for line := range strings.Lines(text) {
			if p.MatchString(strings.TrimSuffix(line, "\n")) {
				wanted++
			}
		}
		require.NotZero(t, wanted, pattern)
		for _, command := range []string{
			Log{Of: Workload{"echo", "cluster-b"}, Matches: p}.Command(),
			Stat{Of: Workload{"echo", "cluster-b"}, Stat: p}.Command(),
			IstiodStat{In: "cluster-b", Stat: p}.Command(),
		} {
			_, grep, ok := strings.Cut(command, " | ")
			require.True(t, ok)
			cmd := exec.Command("sh", "-c", grep)
			cmd.Stdin = strings.NewReader(text)
			out, err := cmd.Output()
			require.NoError(t, err, grep)
			require.Equal(t, wanted, strings.Count(string(out), "\n"), grep)
		}
	}
}

func TestTextsShowPatternsAsTheyWereWritten(t *testing.T) {
	pattern := regexp.MustCompile(`ssl\.fail`)
	of := Workload{"echo", "cluster-b"}
	one := 1
	for _, check := range []Check{
		Log{Of: of, Matches: pattern, Since: 10 * time.Minute},
		Stat{Of: of, Stat: pattern, AtLeast: &one}, IstiodStat{In: "cluster-b", Stat: pattern},
		Command{Run: "kubectl version", Expect: pattern}, Command{Run: "kubectl version", Absent: pattern},
		Object{In: []string{"cluster-b"}, Kind: "Pod", Name: "x", Matches: pattern}, Roots{Matches: pattern},
		Issuer{Of: []Workload{of}, Matches: pattern}, Certificate{Of: []Workload{of}, Identity: pattern},
	} {
		require.Contains(t, check.String(), `"ssl\.fail"`)
	}
	require.Contains(t, Log{Of: of, Matches: pattern, Since: 10 * time.Minute}.String(), "in the last 10m")
	value := Object{In: []string{"cluster-b"}, Kind: "Pod", Name: "x", Path: `.status[?(@.type=='x')]`}
	require.Contains(t, value.Command(), `-o jsonpath='{.status[?(@.type=='"'"'x'"'"')]}'`)
}
