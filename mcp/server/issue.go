package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/pki"
)

type issueIn struct {
	Type      string   `json:"type" jsonschema:"enum=client,enum=server,enum=agent" jsonschema_description:"what it is for"`
	ServiceID string   `json:"service_id" jsonschema:"whose certificate it is: the service's name, or the agent's"`
	TTL       string   `json:"ttl,omitempty" jsonschema:"how long it is good, such as 24h or 30d (default: the policy's)"`
	CSR       string   `json:"csr,omitempty" jsonschema:"certificate signing request in PEM, for a key that is elsewhere; then no files are written"`
	Hosts     []string `json:"hosts,omitempty" jsonschema:"host names and addresses for a server certificate that is made without csr"`
	Dir       string   `json:"dir,omitempty" jsonschema:"where on this host the key, chain and CA are written, when there is no csr: a directory below one of the server's key directories, or its absolute path (default: SERVICE_ID below the first)"`
	Replace   bool     `json:"replace,omitempty" jsonschema:"replace files that are there already"`
}

type issueOut struct {
	Certificate certOut   `json:"certificate"`
	ChainPEM    string    `json:"chain_pem" jsonschema:"the certificate and its issuers, as a server wants it"`
	Files       *filesOut `json:"files,omitempty" jsonschema:"what was written on the host; absent when a csr was given"`
}

type filesOut struct {
	Key   string `json:"key" jsonschema:"path of the private key, mode 0600"`
	Chain string `json:"chain" jsonschema:"path of the chain, leaf first"`
	CA    string `json:"ca" jsonschema:"path of the Hub's root"`
}

func (s *Server) certIssue(ctx context.Context, in issueIn) (*answer[issueOut], error) {
	if err := s.mayChange(ctx); err != nil {
		return nil, err
	}
	if strings.Contains(in.CSR, "PRIVATE KEY") {
		return nil, refused("private_key", "send the request alone; have the person replace this key, because it has been seen", "csr holds a private key")
	}
	if in.CSR != "" && (in.Dir != "" || len(in.Hosts) > 0) {
		return nil, refused("bad_arguments", "with csr leave dir and hosts out: no key is made, and the request has its own names", "csr does not go with dir or hosts")
	}
	r := &hubv1.IssueCertificateRequest{Type: in.Type, ServiceId: in.ServiceID, Ttl: in.TTL, Csr: in.CSR}
	if in.CSR != "" {
		c, err := askHub(ctx, s, (*hubclient.Client).IssueCertificate, r)
		if err != nil {
			return nil, err
		}
		s.acted(ctx, "issue", c.GetId())
		return issued(s, c, nil), nil
	}
	return s.issueFiles(ctx, in, r)
}

func issued(s *Server, c *hubv1.Certificate, files *filesOut) *answer[issueOut] {
	out := issueOut{Certificate: s.cert(c), ChainPEM: c.GetChain(), Files: files}
	text := "Issued " + out.Certificate.line() + "."
	if files != nil {
		text += fmt.Sprintf("\nPrivate key: %s (mode 0600; it is only there)\nChain: %s\nCA: %s", files.Key, files.Chain, files.CA)
	} else {
		text += "\nThe chain in PEM:\n" + out.ChainPEM
	}
	return &answer[issueOut]{out, text}
}

// issueFiles makes the key, has it certified, and writes both. The place is
// prepared first: a certificate that cannot be written should not be issued.
func (s *Server) issueFiles(ctx context.Context, in issueIn, r *hubv1.IssueCertificateRequest) (*answer[issueOut], error) {
	place, err := s.place(in)
	if err != nil {
		return nil, err
	}
	defer place.close()
	keyPEM, csr, err := pki.NewKeyAndRequest(in.ServiceID, in.Hosts...)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	trust, err := askHub(ctx, s, (*hubclient.Client).GetTrust, &hubv1.GetTrustRequest{})
	if err != nil {
		return nil, err
	}
	r.Csr = string(csr)
	c, err := askHub(ctx, s, (*hubclient.Client).IssueCertificate, r)
	if err != nil {
		return nil, err
	}
	s.acted(ctx, "issue", c.GetId())
	// The key before the chain: who watches both waits for a pair that fits.
	err = errors.Join(place.write(in.ServiceID+".key", keyPEM, 0o600), place.write(in.ServiceID+".crt", []byte(c.GetChain()), 0o644), place.write("ca.crt", []byte(trust.GetRoots()), 0o644))
	if err != nil {
		return nil, refused("not_written", "revoke "+c.GetId()+" and mend the directory", "certificate %s is issued, and its files could not be written: %s", c.GetId(), err)
	}
	return issued(s, c, &filesOut{place.path(in.ServiceID + ".key"), place.path(in.ServiceID + ".crt"), place.path("ca.crt")}), nil
}

// place is a directory for files, below one that the server was given. It is
// reached through root, so that no link leads out of it.
type place struct {
	root *os.Root
	base string // what root is
	dir  string // below root
	made bool   // the directory was not there before
}

// close lets go of it. A directory that was made for files that did not come is
// taken away again: it can be, while it is empty.
func (p *place) close() {
	if p.made {
		_ = p.root.Remove(p.dir)
	}
	_ = p.root.Close()
}

func (p *place) path(name string) string { return filepath.Join(p.base, p.dir, name) }

// place prepares where the files of an issue go, and refuses what lies
// elsewhere or would replace something.
func (s *Server) place(in issueIn) (*place, error) {
	if len(s.o.KeyDirs) == 0 {
		return nil, refused("no_key_dir", "give a csr, or have the person start the server with --key-dir DIR", "this server has no directory for keys")
	}
	if in.ServiceID == "" || !filepath.IsLocal(in.ServiceID) || filepath.Base(in.ServiceID) != in.ServiceID || strings.HasPrefix(in.ServiceID, ".") {
		return nil, refused("bad_service", "give the service's name, such as payment-api", "%q cannot be the name of a file", clean(in.ServiceID, 100))
	}
	p := &place{base: s.o.KeyDirs[0], dir: in.Dir}
	if in.Dir == "" {
		p.dir = in.ServiceID
	}
	if filepath.IsAbs(in.Dir) {
		found := false
		for _, base := range s.o.KeyDirs {
			if rel, err := filepath.Rel(base, filepath.Clean(in.Dir)); err == nil && filepath.IsLocal(rel) {
				p.base, p.dir, found = base, rel, true
				break
			}
		}
		if !found {
			p.dir = ".."
		}
	}
	if !filepath.IsLocal(p.dir) {
		return nil, refused("outside", "use a directory below one of: "+strings.Join(s.o.KeyDirs, ", "), "keys are not written to %s", clean(in.Dir, 200))
	}
	if err := os.MkdirAll(p.base, 0o700); err != nil {
		return nil, refused("no_key_dir", "the person makes the directory writable for the user of this server", "%s", err)
	}
	root, err := os.OpenRoot(p.base)
	if err != nil {
		return nil, refused("no_key_dir", "the person makes the directory readable for the user of this server", "%s", err)
	}
	p.root = root
	if err := p.prepare(in); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *place) prepare(in issueIn) error {
	_, err := p.root.Lstat(p.dir)
	p.made = errors.Is(err, fs.ErrNotExist)
	if err := p.root.MkdirAll(p.dir, 0o755); err != nil {
		return refused("no_key_dir", "use another dir", "%s", err)
	}
	if in.Replace {
		return nil
	}
	for _, name := range []string{in.ServiceID + ".key", in.ServiceID + ".crt"} {
		if _, err := p.root.Lstat(filepath.Join(p.dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return refused("exists", `use another dir, or "replace": true if the person wants the old one gone`, "%s is there already", p.path(name))
		}
	}
	return nil
}

// write replaces a file whole, by a temporary one and a rename. It does within
// root what pki.WriteFileAtomic does anywhere.
func (p *place) write(name string, data []byte, mode fs.FileMode) (err error) {
	temp := filepath.Join(p.dir, "."+name+"."+rand.Text()+".tmp")
	f, err := p.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = p.root.Remove(temp)
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return p.root.Rename(temp, filepath.Join(p.dir, name))
}

// acted writes to the server's own log what was done in whose name. The record
// that counts is the Hub's.
func (s *Server) acted(ctx context.Context, what, target string) {
	s.o.Log.Info("mcp act", event.KeyCall, what, event.KeyTarget, target, event.KeyAgent, s.agent(ctx))
}

func timeOf(text string) (time.Time, error) { return time.Parse(time.RFC3339, text) }
