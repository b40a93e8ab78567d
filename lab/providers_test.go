package lab

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/grpclog"
	"k8s.io/klog/v2"
)

// TestSuperviseSilencesLibraries starts itself as a program whose libraries complain.
func TestSuperviseSilencesLibraries(t *testing.T) {
	if os.Getenv("EASTWEST_TEST_COMPLAIN") != "" {
		Supervise()
		klog.Error("a complaint of client-go")
		klog.Flush()
		grpclog.Error("a complaint of grpc")
		return
	}
	complaining := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	complaining.Env = append(os.Environ(), "EASTWEST_TEST_COMPLAIN=1")
	out, err := complaining.CombinedOutput()
	require.NoError(t, err)
	require.Equal(t, "PASS\n", string(out))
}
