package bridge

import (
	"context"
	"crypto/x509"
	"os"
	"sync"
	"time"

	"cyphers.ai/tlsmcp/pkg/jsonrpc"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// Files is a certificate in files, which are read again when they change: by
// tlsmcp cert renew, or by whatever else keeps them fresh.
type Files struct {
	Cert, Key string
	CA        string // empty: the system's CAs are trusted

	mu    sync.Mutex // guards what follows
	cred  *Credential
	seen  [3]stamp
	asked time.Time // when the files were last looked at
}

// stamp tells one content of a file from another.
type stamp struct {
	size    int64
	changed time.Time
}

// lookEvery is how often the files are looked at, at most.
const lookEvery = time.Second

// Current is what is in the files. When they cannot be read any more, or are in
// the middle of being replaced, what was in them before serves on.
func (f *Files) Current(context.Context) (*Credential, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cred != nil && time.Since(f.asked) < lookEvery {
		return f.cred, nil
	}
	if err := f.load(); err != nil && f.cred == nil {
		return nil, err
	}
	return f.cred, nil
}

// load reads the files if they are others than before. The caller holds f.mu.
func (f *Files) load() error {
	f.asked = time.Now()
	var now [3]stamp
	for i, name := range []string{f.Cert, f.Key, f.CA} {
		if info, err := os.Stat(name); name != "" && err == nil {
			now[i] = stamp{info.Size(), info.ModTime()}
		}
	}
	if f.cred != nil && now == f.seen {
		return nil
	}
	pair, err := pki.LoadKeyPair(f.Cert, f.Key)
	if err != nil {
		return &Problem{Code: jsonrpc.CodeUnavailable, Reason: "bad_certificate", Message: err.Error(), err: err,
			Hint: "--cert and --key name a pair that tlsmcp cert issue wrote"}
	}
	cred := &Credential{Certificate: pair}
	if f.CA != "" {
		roots, err := pki.LoadBundle(f.CA)
		if err != nil {
			return &Problem{Code: jsonrpc.CodeUnavailable, Reason: reasonUntrusted, Message: err.Error(), err: err, Hint: "--ca names the server's CA in PEM"}
		}
		cred.Roots = x509.NewCertPool()
		for _, c := range roots {
			cred.Roots.AddCert(c)
		}
	}
	f.cred, f.seen = cred, now
	return nil
}

// forget has the files looked at again at once.
func (f *Files) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = time.Time{}
}

// Renew reads the files again.
func (f *Files) Renew(_ context.Context, refused *Credential) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cred == refused {
		_ = f.load() // what cannot be read is no other certificate
	}
	return f.cred != nil && f.cred != refused
}

// Status is nil: files know nothing more.
func (f *Files) Status(context.Context, *Credential) *Problem { return nil }
