package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/eastwest-lab/eastwest/lab/host"
)

// controlSocket is the Unix socket in the node's folder on which the node answers HTTP requests. See Serve for those.
const controlSocket = "control.sock"

// Status is a node's report about itself.
type Status struct {
	Cluster    string              `json:"cluster"`
	Up         float64             `json:"up_seconds"`
	Components []host.ProcessState `json:"components"`
	Pods       []PodState          `json:"pods,omitempty"`
	Blocks     map[string]Block    `json:"blocks,omitempty"`
	Usable     bool                `json:"usable,omitempty"`  // only of nodes of kind: embedded ones report it to their parent
	Problem    string              `json:"problem,omitempty"` // why the node will never be usable
	Usage      *host.CgroupUsage   `json:"usage,omitempty"`   // only of nodes of kind: this machine cannot see their cgroup
}

// Server is a node seen from inside: it keeps the node's rules and answers on the control socket.
type Server struct {
	Place      Place
	Dir        string // the node's folder, as seen from inside
	Processes  func() []host.ProcessState
	Signal     func(component string, sig syscall.Signal) error
	NFT        func(ctx context.Context, rules string) error // loads nftables rules into the kernel
	Complete   func(*Status)                                 // fills in fields that only this kind of node knows; may be nil
	SocketMode os.FileMode

	PodProcesses  func() []host.PodProcess
	SignalProcess func(pid int, sig syscall.Signal) error // a process of a pod

	begin  time.Time
	mu     sync.Mutex // guards blocks and the rules made of them
	blocks map[string]Block
}

// blocksFile keeps the blocks for the next server if this one ends: a fault lasts until it is healed.
const blocksFile = "blocks.json"

// Apply loads the node's rules, including the blocks of an earlier server.
func (s *Server) Apply(ctx context.Context) error {
	var earlier map[string]Block
	if err := ReadJSON(filepath.Join(s.Dir, blocksFile), &earlier); err != nil && !errors.Is(err, fs.ErrNotExist) {
		// A node without rules would be worse.
		fmt.Fprintln(os.Stderr, "faults of the network that were in force are forgotten:", err)
	}
	return s.changeBlocks(ctx, func(all map[string]Block) { maps.Copy(all, earlier) })
}

// Serve opens the control socket and returns. The socket is answered until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	s.begin = time.Now()
	listener, err := listenUnix(s.Dir)
	if err == nil && s.SocketMode != 0 {
		err = os.Chmod(filepath.Join(s.Dir, controlSocket), s.SocketMode)
	}
	if err != nil {
		return fmt.Errorf("opening the control socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		status := Status{Cluster: s.Place.Name, Up: time.Since(s.begin).Seconds(), Components: s.Processes(), Blocks: s.blocks}
		status.Pods = s.podStates(status.Components)
		if s.Complete != nil {
			s.Complete(&status)
		}
		_ = json.NewEncoder(w).Encode(status)
	})
	mux.HandleFunc("POST /signal", func(w http.ResponseWriter, r *http.Request) {
		var order signalOrder
		s.answer(w, json.NewDecoder(r.Body).Decode(&order), func() error { return s.Signal(order.Component, syscall.Signal(order.Signal)) })
	})
	mux.HandleFunc("POST /pods/{uid}/freeze", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, nil, func() error { return s.freezePod(r.PathValue("uid")) })
	})
	mux.HandleFunc("POST /pods/{uid}/thaw", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, nil, func() error { return s.thawPod(r.PathValue("uid")) })
	})
	mux.HandleFunc("PUT /blocks/{id}", func(w http.ResponseWriter, r *http.Request) {
		var b Block
		s.answer(w, json.NewDecoder(r.Body).Decode(&b), func() error {
			return s.changeBlocks(ctx, func(all map[string]Block) { all[r.PathValue("id")] = b })
		})
	})
	mux.HandleFunc("DELETE /blocks/{id}", func(w http.ResponseWriter, r *http.Request) {
		s.answer(w, nil, func() error {
			return s.changeBlocks(ctx, func(all map[string]Block) { delete(all, r.PathValue("id")) })
		})
	})
	mux.HandleFunc("POST /dial/{address}", s.dial)
	go func() { _ = (&http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}).Serve(listener) }()
	return nil
}

type signalOrder struct {
	Component string `json:"component"`
	Signal    int    `json:"signal"`
}

func (s *Server) answer(w http.ResponseWriter, err error, do func() error) {
	if err == nil {
		err = do()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
	}
}

// changeBlocks applies a change of the blocks. If it cannot be written down, or if the kernel refuses the new rules, the
// old blocks stay.
func (s *Server) changeBlocks(ctx context.Context, change func(map[string]Block)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := map[string]Block{}
	maps.Copy(next, s.blocks)
	change(next)
	keep := func(blocks map[string]Block) error {
		if len(next)+len(s.blocks) == 0 {
			return nil
		}
		return WriteJSON(filepath.Join(s.Dir, blocksFile), blocks)
	}
	if err := keep(next); err != nil {
		return err
	}
	if err := s.NFT(ctx, Rules(s.Place, next)); err != nil {
		return errors.Join(err, keep(s.blocks))
	}
	s.blocks = next
	return nil
}

// dial connects to an address of the node's network and then passes bytes on in both directions.
func (s *Server) dial(w http.ResponseWriter, r *http.Request) {
	target, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", r.PathValue("address"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer target.Close()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("HTTP/1.1 200 OK\r\n\r\n")); err != nil {
		return
	}
	done := make(chan struct{}, 2)
	pipe := func(to net.Conn, from io.Reader) {
		_, _ = io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
		done <- struct{}{}
	}
	go pipe(target, buffered)
	go pipe(conn, target)
	<-done
	<-done
}

// inFolder calls do with a short path of the control socket: the path of a Unix socket has room for 107
// bytes only (unix(7)), and a lab's folder may be deeper than that.
func inFolder(dir string, do func(path string) error) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", dir, err)
	}
	defer unix.Close(fd)
	return do(fmt.Sprintf("/proc/self/fd/%d/%s", fd, controlSocket))
}

func listenUnix(dir string) (listener *net.UnixListener, err error) {
	if err := os.Remove(filepath.Join(dir, controlSocket)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	err = inFolder(dir, func(path string) error {
		listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		return err
	})
	if err == nil {
		listener.SetUnlinkOnClose(false) // its path goes through a file descriptor that is closed by then
	}
	return listener, err
}

// control is a client of a node's control socket.
type control struct{ dir string }

func (c control) connect(ctx context.Context) (conn net.Conn, err error) {
	err = inFolder(c.dir, func(path string) error {
		conn, err = (&net.Dialer{}).DialContext(ctx, "unix", path)
		return err
	})
	return conn, err
}

func (c control) do(ctx context.Context, method, path string, body, answer any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://node"+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	connect := func(ctx context.Context, _, _ string) (net.Conn, error) { return c.connect(ctx) }
	transport := &http.Transport{DialContext: connect, DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		return fmt.Errorf("asking the node of %s: %w", filepath.Base(c.dir), err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		return fmt.Errorf("asking the node of %s: %s", filepath.Base(c.dir), bytes.TrimSpace(text))
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

// dial opens a connection to an address inside the node's network.
func (c control) dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(conn, "POST /dial/%s HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n", addr); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	// The head of the answer is read byte by byte: the bytes that follow it belong to the caller.
	var head bytes.Buffer
	for one := make([]byte, 1); !bytes.HasSuffix(head.Bytes(), []byte("\r\n\r\n")) && head.Len() < 4096; {
		if _, err := conn.Read(one); err != nil {
			return nil, errors.Join(fmt.Errorf("dialing %s through its node: %w", addr, err), conn.Close())
		}
		head.Write(one)
	}
	if !bytes.HasPrefix(head.Bytes(), []byte("HTTP/1.1 200")) {
		reason, _ := io.ReadAll(io.LimitReader(conn, 1024))
		return nil, errors.Join(fmt.Errorf("dialing %s through its node: %s", addr, bytes.TrimSpace(reason)), conn.Close())
	}
	return conn, nil
}
