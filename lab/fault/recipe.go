package fault

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/eastwest-lab/eastwest/lab/mesh"
	"github.com/eastwest-lab/eastwest/lab/observe"
	"github.com/eastwest-lab/eastwest/lab/pki"
)

// recipe collects the commands by which a person makes the Secret cacerts of one cluster. They are for a POSIX shell with
// the lab's environment (`eval "$(eastwest env)"`), kubectl and OpenSSL 3, and leave their files in the current folder.
type recipe struct {
	cluster string
	lines   []string
}

func (r *recipe) add(format string, a ...any) {
	if line := fmt.Sprintf(format, a...); !slices.Contains(r.lines, line) {
		r.lines = append(r.lines, line)
	}
}

// caFiles are where a certificate and its key are.
type caFiles struct{ cert, key string }

// labCAs is the folder of the lab's CAs, as mesh.Mesh.CADir has it, beside the lab's kubeconfig.
const labCAs = `"$CA"`

// labCA names a CA in the lab's folder.
func (r *recipe) labCA(name string) caFiles {
	r.add(`CA="$(dirname "$KUBECONFIG")/mesh/CA"`)
	return caFiles{labCAs + "/" + name + "/cert.pem", labCAs + "/" + name + "/key.pem"}
}

// makeCA is the beginning of the command that makes a key and a certificate. Keys are like those of package pki.
const makeCA = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %[2]s -out %[1]s"

// Extensions of CAs. openssl makes the first of a root by itself.
const (
	intermediate = " -addext basicConstraints=critical,CA:TRUE,pathlen:0"
	keyUsage     = " -addext keyUsage=critical,keyCertSign,cRLSign"
)

// subjectOf is the subject of a certificate in the form that -subj takes.
func subjectOf(cert string) string {
	return fmt.Sprintf(`"$(openssl x509 -noout -subject -nameopt compat -in %s | cut -d= -f2-)"`, cert)
}

// root returns the files of a root, with a command that makes it if it is not there. Roots that clusters share are made
// once, by the first of the commands.
func (r *recipe) root(root Root) caFiles {
	name := string(root) + "-root"
	switch root {
	case SharedRoot:
		return r.labCA(mesh.Topology{Trust: mesh.SharedRoot}.RootName(r.cluster))
	case OwnRoot:
		name += "-" + r.cluster
	}
	files := caFiles{name + ".pem", name + "-key.pem"}
	subject := fmt.Sprintf("'/O=eastwest/CN=%s root'", root)
	switch root {
	case OwnRoot:
		subject = fmt.Sprintf("'/O=eastwest/CN=root of %s'", r.cluster)
	case TwinRoot:
		subject = subjectOf(r.labCA(mesh.Topology{Trust: mesh.SharedRoot}.RootName(r.cluster)).cert)
	}
	r.add("[ -e %[1]s ] || "+makeCA+" -days 3650 -subj %[3]s"+keyUsage, files.cert, files.key, subject)
	return files
}

// lifetime is what openssl needs to give a certificate a lifetime other than two years. Ends that are not whole days away,
// and beginnings in the future, need OpenSSL 3.4.
func lifetime(from, life time.Duration) string {
	date := func(option string, d time.Duration) string {
		return fmt.Sprintf(` %s "$(date -u -d '+%d seconds' +%%Y%%m%%d%%H%%M%%SZ)"`, option, int(d.Seconds()))
	}
	const day = 24 * time.Hour
	switch {
	case from == 0 && life == 0:
		return " -days 730"
	case from == 0 && life%day == 0:
		return fmt.Sprintf(" -days %d", life/day)
	case life == 0:
		life = 730 * day
	}
	if from == 0 {
		return date("-not_after", life)
	}
	return date("-not_before", from) + date("-not_after", from+life)
}

// secretFile writes a key of a Secret of Istio's namespace to a file.
func (r *recipe) secretFile(cluster, secret, key, file string) {
	r.add(`kubectl get secret %s -n %s --context=%s -o go-template='{{index .data %q}}' | base64 -d > %s`,
		secret, mesh.SystemNamespace, cluster, key, file)
}

// trusted returns the file with the certificates of a root, with the commands that make it.
func (r *recipe) trusted(root Root) string {
	switch root {
	case SelfSignedRoot:
		r.secretFile(r.cluster, observe.SelfSignedSecret, pki.CACertFile, "self-signed-root.pem")
		return "self-signed-root.pem"
	case PeerRoots:
		r.add(`for c in $(kubectl config get-contexts -o name | grep -vx %s); do `+
			`kubectl get secret %s -n %s --context=$c -o go-template='{{index .data %q}}' | base64 -d; done > peers.pem`,
			r.cluster, mesh.CACerts, mesh.SystemNamespace, pki.RootCertFile)
		return "peers.pem"
	}
	return r.root(root).cert
}

// commands are what a person would type to make the Secret in one cluster.
func (o CACerts) commands(cluster string) string {
	r := &recipe{cluster: cluster}
	files := o.signerFiles(r)
	if len(o.Trusted) > 0 {
		var roots []string
		for _, root := range o.Trusted {
			roots = append(roots, r.trusted(root))
		}
		r.add("cat %s > %s", strings.Join(roots, " "), pki.RootCertFile)
		files[pki.RootCertFile] = pki.RootCertFile
	}
	switch o.CRL {
	case CompleteCRL:
		r.labCA("") // it says where they are
		r.add(`printf '[ca]\ndefault_ca=x\n[x]\ndatabase=/dev/null\n' > crl.cnf`)
		r.add(`for ca in %s/root %[1]s/intermediate-*; do openssl ca -gencrl -crldays 1 -md sha256 -config crl.cnf `+
			`-cert "$ca"/cert.pem -keyfile "$ca"/key.pem; done > %s`,
			labCAs, pki.CRLFile)
		files[pki.CRLFile] = pki.CRLFile
	case KeptCRL:
		r.secretFile(cluster, mesh.CACerts, pki.CRLFile, pki.CRLFile)
		files[pki.CRLFile] = pki.CRLFile
	}
	command := fmt.Sprintf("kubectl create secret generic %s -n %s --context=%s", mesh.CACerts, mesh.SystemNamespace, cluster)
	for _, key := range sortedKeys(files) {
		command += " --from-file=" + key
		if files[key] != key {
			command += "=" + files[key]
		}
	}
	r.add("%s --dry-run=client -o yaml | kubectl apply --context=%s -f -", command, cluster)
	return strings.Join(r.lines, "\n")
}

// selfSignCommands are what a person would type for SelfSign in one cluster, without the restarts.
func selfSignCommands(cluster string) string {
	r := &recipe{cluster: cluster}
	root := r.root(SelfSignedRoot)
	r.add("kubectl create secret generic %s -n %s --context=%s --type=istio.io/ca-root"+
		" --from-file=%s=%s --from-file=%s=%s --from-file=%s=%[5]s"+
		" --dry-run=client -o yaml | kubectl apply --context=%[3]s -f -",
		observe.SelfSignedSecret, mesh.SystemNamespace, cluster, pki.CACertFile, root.cert, pki.CAKeyFile, root.key, pki.RootCertFile)
	r.add("kubectl delete secret %s -n %s --context=%s --ignore-not-found", mesh.CACerts, mesh.SystemNamespace, cluster)
	return strings.Join(r.lines, "\n")
}

// signerFiles returns where the files of the part that signs are, by the keys of the Secret.
func (o CACerts) signerFiles(r *recipe) map[string]string {
	if o.Root == SelfSignedRoot {
		for _, key := range []string{pki.CACertFile, pki.CAKeyFile} {
			r.secretFile(r.cluster, observe.SelfSignedSecret, key, key)
		}
		return map[string]string{
			pki.CACertFile: pki.CACertFile, pki.CAKeyFile: pki.CAKeyFile, pki.CertChainFile: pki.CACertFile, pki.RootCertFile: pki.CACertFile,
		}
	}
	var root caFiles
	if o.RootLifetime > 0 {
		root = caFiles{"expiring-root.pem", "expiring-root-key.pem"}
		r.add("[ -e %[1]s ] || "+makeCA+"%[3]s -subj '/O=eastwest/CN=expiring root'"+keyUsage, root.cert, root.key, lifetime(0, o.RootLifetime))
	} else {
		root = r.root(o.Root)
	}
	old := o.Root == SharedRoot && o.RootLifetime == 0 // the lab has an intermediate below it since it was made
	if old && (o.Intermediate == nil || o.Intermediate.Reissued) {
		ca := r.labCA(mesh.CAName(r.cluster))
		files := map[string]string{pki.CACertFile: ca.cert, pki.CAKeyFile: ca.key, pki.CertChainFile: ca.cert, pki.RootCertFile: root.cert}
		if o.intermediate().Reissued {
			r.add("openssl req -x509 -key %s -CA %s -CAkey %s -out %s%s -subj %s"+intermediate+keyUsage,
				ca.key, root.cert, root.key, pki.CertChainFile, lifetime(o.intermediate().StartsIn, o.intermediate().Lifetime), subjectOf(ca.cert))
			files[pki.CertChainFile] = pki.CertChainFile
		}
		return files
	}
	more := ""
	if o.Root == TwinRoot { // only the name leads to its root
		more = " -addext authorityKeyIdentifier=none"
	}
	r.add(makeCA+" -CA %[3]s -CAkey %[4]s%[5]s -subj '/O=eastwest/CN=intermediate %[6]s'"+intermediate+keyUsage+more,
		pki.CACertFile, pki.CAKeyFile, root.cert, root.key, lifetime(o.intermediate().StartsIn, o.intermediate().Lifetime), r.cluster)
	return map[string]string{
		pki.CACertFile: pki.CACertFile, pki.CAKeyFile: pki.CAKeyFile, pki.CertChainFile: pki.CACertFile, pki.RootCertFile: root.cert,
	}
}
