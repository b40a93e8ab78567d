package kind

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/eastwest-lab/eastwest/lab/cluster"
	"github.com/eastwest-lab/eastwest/lab/cluster/machine"
)

// fakeDocker is a docker command whose volumes are files. Like Docker, it makes a volume of one name once, and hands out the one
// that is there to whoever makes it again.
const fakeDocker = `#!/bin/sh
state=$(dirname "$0")/state
matches() {
	file=$1
	shift
	for filter; do
		case $filter in label=*)
			pair=${filter#label=}
			grep -q "\"${pair%%=*}\":\"${pair#*=}\"" "$file" || return 1
		esac
	done
}
case "$1 $2" in
"version --format") cat "$(dirname "$0")/version.json" ;;
"volume create")
	shift 2
	labels=
	while [ "$1" = --label ]; do
		labels="$labels${labels:+,}\"${2%%=*}\":\"${2#*=}\""
		shift 2
	done
	echo "[{\"Labels\":{$labels}}]" >"$state/.$$"
	ln "$state/.$$" "$state/$1" 2>/dev/null
	rm "$state/.$$"
	echo "$1"
	;;
"volume inspect") cat "$state/$3" 2>/dev/null || { echo "No such volume: $3" >&2; exit 1; } ;;
"volume ls")
	for file in "$state"/*; do
		[ ! -e "$file" ] || ! matches "$file" "$@" || basename "$file"
	done
	;;
"volume rm")
	shift 3
	for name; do rm -f "$state/$name"; done
	;;
"ps --all" | "image ls" | "network ls") ;;
*) echo "what is: docker $*" >&2; exit 1 ;;
esac
`

// useFakeDocker puts it in front of every other and returns the folder of its volumes.
func useFakeDocker(t *testing.T) (state string) {
	t.Helper()
	dir := t.TempDir()
	version, err := os.ReadFile("testdata/docker-version.json")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "version.json"), version, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "docker"), []byte(fakeDocker), 0o755))
	state = filepath.Join(dir, "state")
	require.NoError(t, os.Mkdir(state, 0o755))
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	return state
}

// Two homes, perhaps on two machines, want a name in one Docker at the same moment. One gets it. The other one leaves nothing,
// and takes nothing away.
func TestTwinsInOneDocker(t *testing.T) {
	const races = 50
	state := useFakeDocker(t)
	homes := []string{t.TempDir(), t.TempDir()}
	for round := range races {
		problems := make([]error, len(homes))
		providers := make([]*Provider, len(homes))
		begin := make(chan struct{})
		var all sync.WaitGroup
		for i, home := range homes {
			providers[i] = &Provider{Lab: cluster.Lab{Home: home, ID: fmt.Sprintf("%d-%d", round, i)}}
			all.Go(func() {
				<-begin
				_, problems[i] = providers[i].Claim(t.Context(), "twin")
			})
		}
		close(begin)
		all.Wait()
		winner := 0
		if problems[0] != nil {
			winner = 1
		}
		loser := 1 - winner
		require.NoError(t, problems[winner], "round %d: nobody has it: %v", round, problems[loser])
		var taken *cluster.TakenError
		require.ErrorAs(t, problems[loser], &taken, "round %d", round)
		require.ErrorContains(t, taken, "lab twin: wanted a name that is free in this Docker; "+
			"seen: a lab twin that was made with another EASTWEST_HOME")
		require.NoDirExists(t, filepath.Join(homes[loser], "labs", "twin", "kind"))
		held, err := os.ReadFile(filepath.Join(state, "eastwest-twin"))
		require.NoError(t, err, "round %d: the loser has removed it", round)
		require.Contains(t, string(held), providers[winner].ID)
		// That Delete does this is shown once: it starts many commands.
		require.NoError(t, os.Remove(filepath.Join(state, "eastwest-twin")))
		require.NoError(t, os.RemoveAll(machine.Dir(homes[winner], "twin", provider)))
	}
}

// A claim that a crash has left is no obstacle to its own home, and stays one to others until that home removes it.
func TestAClaimThatACrashHasLeft(t *testing.T) {
	state := useFakeDocker(t)
	home, other := t.TempDir(), t.TempDir()
	_, err := (&Provider{Lab: cluster.Lab{Home: home, ID: "before"}}).Claim(t.Context(), "twin")
	require.NoError(t, err)
	var taken *cluster.TakenError
	_, err = (&Provider{Lab: cluster.Lab{Home: other, ID: "other"}}).Claim(t.Context(), "twin")
	require.ErrorAs(t, err, &taken)
	again := &Provider{Lab: cluster.Lab{Home: home, ID: "after"}}
	_, err = again.Claim(t.Context(), "twin")
	require.NoError(t, err)
	held, err := os.ReadFile(filepath.Join(state, "eastwest-twin"))
	require.NoError(t, err)
	require.Contains(t, string(held), "after")
	require.NoError(t, (&Provider{Lab: cluster.Lab{Home: home}}).Delete(t.Context(), "twin"), "down knows the home only")
	require.NoFileExists(t, filepath.Join(state, "eastwest-twin"))
	require.NoDirExists(t, machine.Dir(home, "twin", provider))
	_, err = (&Provider{Lab: cluster.Lab{Home: other, ID: "other"}}).Claim(t.Context(), "twin")
	require.NoError(t, err)
}
