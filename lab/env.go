package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/net/http/httpproxy"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/eastwest-lab/eastwest/lab/mesh"
)

// Env is what a shell needs to work with the lab.
type Env struct {
	Kubeconfig string // of all clusters, one context each
	BinDir     string // the folder of the bundle's kubectl and istioctl
	MoreBin    string // the folder of the istioctls of other versions of Istio; empty if the lab has no other
	// NoProxy is a value for NO_PROXY that includes the lab's API servers. It is empty if the user has no proxy, or if the proxy
	// may be the only way to the API servers.
	NoProxy string
}

// Env returns the lab's kubeconfig and programs.
func (l *Lab) Env() Env {
	e := Env{Kubeconfig: filepath.Join(labDir(l.home, l.Name), "kubeconfig"), BinDir: l.bundle.BinDir()}
	if len(l.istios) > 0 {
		e.MoreBin = l.istioctls()
	}
	proxy := httpproxy.FromEnvironment()
	if proxy.HTTPSProxy == "" || isGuest(l.record.Settings) {
		return e
	}
	var direct []string
	if proxy.NoProxy != "" {
		direct = append(direct, proxy.NoProxy)
	}
	for _, c := range l.Clusters {
		if u, err := url.Parse(c.RESTConfig().Host); err == nil {
			direct = append(direct, u.Hostname())
		}
	}
	e.NoProxy = strings.Join(direct, ",")
	return e
}

// istioctls is the folder of the istioctls of other versions.
func (l *Lab) istioctls() string { return filepath.Join(labDir(l.home, l.Name), "bin") }

// linkIstioctls links the istioctl of each other version of Istio as istioctl-VERSION, which is what printed commands call it.
func (l *Lab) linkIstioctls() error {
	for name, istio := range l.istios {
		link := filepath.Join(l.istioctls(), mesh.Istioctl(name))
		if err := os.MkdirAll(l.istioctls(), 0o755); err != nil {
			return fmt.Errorf("linking %s: %w", link, err)
		}
		if err := os.Symlink(istio.Istioctl, link); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("linking %s: %w", link, err)
		}
	}
	return nil
}

// writeKubeconfig writes a file with a context for each cluster, and for each cluster a copy of it in which that
// cluster's context is the current one. The user's own kubeconfig is never touched.
func (l *Lab) writeKubeconfig() error {
	merged := api.NewConfig()
	for _, c := range l.Clusters {
		has, ok := c.(interface{ Kubeconfig() string })
		if !ok {
			return fmt.Errorf("cluster %s has no kubeconfig", c.Name())
		}
		own, err := clientcmd.LoadFromFile(has.Kubeconfig())
		if err != nil {
			return fmt.Errorf("reading the kubeconfig of %s: %w", c.Name(), err)
		}
		for name, v := range own.Clusters {
			v.LocationOfOrigin = ""
			merged.Clusters[name] = v
		}
		for name, v := range own.AuthInfos {
			v.LocationOfOrigin = ""
			merged.AuthInfos[name] = v
		}
		for name, v := range own.Contexts {
			v.LocationOfOrigin = ""
			merged.Contexts[name] = v
		}
	}
	for i, c := range l.Clusters {
		merged.CurrentContext = c.Name()
		files := []string{l.Env().Kubeconfig + "-" + c.Name()}
		if i == 0 {
			files = append(files, l.Env().Kubeconfig)
		}
		for _, file := range files {
			if err := clientcmd.WriteToFile(*merged, file); err != nil {
				return fmt.Errorf("writing the lab's kubeconfig: %w", err)
			}
		}
	}
	return nil
}
