package bundle

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// repository is an image's name without its tag.
func repository(ref string) string { return ref[:strings.LastIndex(ref, ":")] }

// archived is an image in an archive of ours, and all the names that it shall have.
type archived struct {
	Image
	names []string
}

// joinArchives makes one OCI layout of several. Its first entry is Docker's old list of names, from which kind learns what
// the archive holds; containerd takes the index.
func joinArchives(to string, images []archived) error {
	repositories := map[string]map[string]string{}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.index.v1+json"}
	for _, image := range images {
		own, err := readIndex(image.Archive)
		if err != nil {
			return fmt.Errorf("reading %s: %w", image.Ref, err)
		}
		for _, name := range image.names {
			tag := strings.TrimPrefix(name, repository(name)+":")
			if repositories[repository(name)] == nil {
				repositories[repository(name)] = map[string]string{}
			}
			repositories[repository(name)][tag] = own.Digest.Hex
			d := own
			d.Platform = &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
			d.Annotations = maps.Clone(own.Annotations)
			d.Annotations["io.containerd.image.name"], d.Annotations["org.opencontainers.image.ref.name"] = name, tag
			index.Manifests = append(index.Manifests, d)
		}
	}
	first, err := json.Marshal(repositories)
	if err != nil {
		return err
	}
	list, err := json.Marshal(index)
	if err != nil {
		return err
	}
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer f.Close()
	tw := tar.NewWriter(f)
	for _, e := range []entry{
		{path: "/repositories", mode: 0o644, data: first},
		{path: "/oci-layout", mode: 0o644, data: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{path: "/index.json", mode: 0o644, data: list},
	} {
		if err := e.write(tw); err != nil {
			return err
		}
	}
	seen := map[string]bool{} // images share layers
	for _, image := range images {
		err := eachEntry(image.Archive, func(h *tar.Header, r io.Reader) error {
			if !strings.HasPrefix(h.Name, "blobs/") || seen[h.Name] {
				return nil
			}
			seen[h.Name] = true
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
			_, err := io.Copy(tw, r)
			return err
		})
		if err != nil {
			return fmt.Errorf("copying %s: %w", image.Ref, err)
		}
	}
	return errors.Join(tw.Close(), f.Close())
}

// readIndex returns what an archive's index says of its one image.
func readIndex(archive string) (v1.Descriptor, error) {
	var index v1.IndexManifest
	err := eachEntry(archive, func(h *tar.Header, r io.Reader) error {
		if h.Name != "index.json" {
			return nil
		}
		return json.NewDecoder(r).Decode(&index)
	})
	if err == nil && len(index.Manifests) != 1 {
		err = fmt.Errorf("its index names %d images, wanted 1", len(index.Manifests))
	}
	if err != nil {
		return v1.Descriptor{}, err
	}
	return index.Manifests[0], nil
}

// eachEntry calls do for every entry of a tar.
func eachEntry(file string, do func(*tar.Header, io.Reader) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := do(h, tr); err != nil {
			return err
		}
	}
}
