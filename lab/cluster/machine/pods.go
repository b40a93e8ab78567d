package machine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/eastwest-lab/eastwest/lab/host"
)

// podLogs is where a kubelet keeps the logs of pods, in a folder NAMESPACE_NAME_UID for each.
const podLogs = "/var/log/pods"

// PodState is a pod as the processes of a node show it.
type PodState struct {
	UID       string `json:"uid"`
	Name      string `json:"name"` // NAMESPACE/NAME; the UID if it is not known
	Processes int    `json:"processes"`
	Frozen    bool   `json:"frozen,omitempty"` // a process of it is stopped
}

// podStates returns the pods of the node, sorted by name. A component may run in a pod, too: where it is stopped, its pod is not
// frozen.
func (s *Server) podStates(components []host.ProcessState) []PodState {
	names := podNames(podLogs)
	byUID := map[string]*PodState{}
	for _, p := range s.PodProcesses() {
		pod := byUID[p.Pod]
		if pod == nil {
			pod = &PodState{UID: p.Pod, Name: p.Pod}
			if name, ok := names[p.Pod]; ok {
				pod.Name = name
			}
			byUID[p.Pod] = pod
		}
		pod.Processes++
		component := slices.ContainsFunc(components, func(c host.ProcessState) bool { return c.PID == p.PID })
		pod.Frozen = pod.Frozen || p.Stopped && !component
	}
	all := make([]PodState, 0, len(byUID))
	for _, pod := range byUID {
		all = append(all, *pod)
	}
	slices.SortFunc(all, func(a, b PodState) int { return strings.Compare(a.Name+a.UID, b.Name+b.UID) })
	return all
}

// podNames returns the names of pods by UID, as the folders of their logs tell them.
func podNames(logs string) map[string]string {
	names := map[string]string{}
	folders, _ := os.ReadDir(logs) // no pod has started yet
	for _, folder := range folders {
		if parts := strings.Split(folder.Name(), "_"); len(parts) == 3 {
			names[parts[2]] = parts[0] + "/" + parts[1]
		}
	}
	return names
}

// freezePod sends SIGSTOP to those processes of a pod that still run, and returns an error if there were any: a signal takes effect
// when the process runs next, and a process may have made another one meanwhile. So it is asked again until it returns nil.
func (s *Server) freezePod(uid string) error {
	ran, err := s.signalPod(uid, syscall.SIGSTOP, func(p host.PodProcess) bool { return !p.Stopped })
	if err == nil && ran > 0 {
		err = fmt.Errorf("%d processes still ran", ran)
	}
	return err
}

// thawPod lets the processes of a pod go on. SIGCONT means nothing to those that run, and one that was just stopped may not show as
// stopped yet. That the pod is gone is no error.
func (s *Server) thawPod(uid string) error {
	_, err := s.signalPod(uid, syscall.SIGCONT, func(host.PodProcess) bool { return true })
	if errors.Is(err, errNoPod) {
		return nil
	}
	return err
}

var errNoPod = errors.New("no process of it runs in this node")

// signalPod sends a signal to processes of a pod, and counts them.
func (s *Server) signalPod(uid string, sig syscall.Signal, which func(host.PodProcess) bool) (sent int, err error) {
	err = errNoPod
	for _, p := range s.PodProcesses() {
		if p.Pod != uid {
			continue
		}
		if errors.Is(err, errNoPod) {
			err = nil
		}
		if !which(p) {
			continue
		}
		sent++
		if e := s.SignalProcess(p.PID, sig); e != nil && !errors.Is(e, unix.ESRCH) {
			err = errors.Join(err, fmt.Errorf("signaling process %d: %w", p.PID, e))
		}
	}
	return sent, err
}
