package trust

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"cyphers.ai/tlsmcp/pkg/netguard"
	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/revoke"
)

const (
	fetchTimeout  = time.Minute // of a whole download
	answerTimeout = 15 * time.Second
	maxRedirects  = 3
	firstRetry    = time.Second
)

// newClient makes the client for CRL URLs. It uses no proxy, because a proxy
// would make the connections that the guard is to see; it does not unpack
// compressed answers, because the size cap is on what arrives.
func newClient(allowPrivate bool) *http.Client {
	dialer := &net.Dialer{Timeout: answerTimeout}
	if !allowPrivate {
		// Control runs for each address after the name was resolved, so a name
		// that points inwards is caught as well as an address that does.
		dialer.Control = guard
	}
	return &http.Client{
		Timeout:       fetchTimeout,
		CheckRedirect: checkRedirect,
		Transport: &http.Transport{
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    answerTimeout,
			ResponseHeaderTimeout:  answerTimeout,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
			DisableKeepAlives:      true,
		},
	}
}

// guard refuses connections to addresses that are not on the public internet.
func guard(network, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !netguard.Public(ap.Addr()) {
		return fmt.Errorf("%s is not a public address; set mtls.crl_allow_private to allow it", ap.Addr())
	}
	return nil
}

// checkRedirect bounds redirects. Where they lead to is the guard's to see.
func checkRedirect(r *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("more than %d redirects", maxRedirects)
	case r.URL.Scheme != "http" && r.URL.Scheme != "https":
		return fmt.Errorf("redirected to a %q URL", r.URL.Scheme)
	case via[0].URL.Scheme == "https" && r.URL.Scheme != "https":
		return errors.New("redirected from https to http")
	}
	return nil
}

// checkURL refuses what cannot be fetched before anything is.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		err = errors.New("it is not an http or https URL")
	}
	if err != nil {
		return fmt.Errorf("mtls.crl_urls %q: %w", raw, err)
	}
	return nil
}

// redacted is a URL to show, without a password.
func redacted(raw string) string {
	if u, err := url.Parse(raw); err == nil {
		return u.Redacted()
	}
	return raw
}

// meta is what is kept of a download beside its bytes.
type meta struct {
	URL          string    `json:"url"`
	ETag         string    `json:"etag,omitempty"`
	LastModified string    `json:"last_modified,omitempty"`
	Confirmed    time.Time `json:"confirmed"`
	SHA256       string    `json:"sha256"` // of the bytes that this belongs to
}

// errUnchanged is an answer 304.
var errUnchanged = errors.New("unchanged")

// download asks for a URL. With errUnchanged what m describes is still current.
func download(ctx context.Context, client *http.Client, m meta) ([]byte, meta, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.URL, nil)
	if err != nil {
		return nil, m, err
	}
	req.Header.Set("Accept", "application/pkix-crl, application/x-pem-file, */*;q=0.1")
	req.Header.Set("User-Agent", "tlsmcpd")
	if m.ETag != "" {
		req.Header.Set("If-None-Match", m.ETag)
	}
	if m.LastModified != "" {
		req.Header.Set("If-Modified-Since", m.LastModified)
	}
	conditional := m.ETag != "" || m.LastModified != ""
	resp, err := client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the URL is in whatever this goes into, without its password
		}
		return nil, m, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && conditional:
		return nil, m, errUnchanged
	case resp.StatusCode != http.StatusOK:
		return nil, m, fmt.Errorf("the server answered %s", resp.Status)
	case resp.ContentLength > revoke.MaxSize:
		return nil, m, fmt.Errorf("the answer has %d bytes, more than %d", resp.ContentLength, revoke.MaxSize)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, revoke.MaxSize+1))
	if err != nil {
		return nil, m, fmt.Errorf("read the answer: %w", err)
	}
	if len(data) > revoke.MaxSize {
		return nil, m, fmt.Errorf("the answer has more than %d bytes", revoke.MaxSize)
	}
	sum := sha256.Sum256(data)
	return data, meta{URL: m.URL, ETag: resp.Header.Get("ETag"), LastModified: resp.Header.Get("Last-Modified"),
		SHA256: hex.EncodeToString(sum[:])}, nil
}

// diskCache keeps downloads over a restart: the bytes as they came, and a JSON
// file beside them. What is read back is verified like a download.
type diskCache struct{ dir string }

func (d diskCache) path(url, ext string) string {
	sum := sha256.Sum256([]byte(url))
	return filepath.Join(d.dir, hex.EncodeToString(sum[:])+ext)
}

// load reads what is kept for a URL. The meta of other bytes than those found
// is not used: its ETag would keep the server from sending what is missing.
func (d diskCache) load(url string) ([]byte, meta, error) {
	fresh := meta{URL: url}
	if d.dir == "" {
		return nil, fresh, os.ErrNotExist
	}
	data, err := readCRLFile(d.path(url, ".crl"))
	if err != nil {
		return nil, fresh, err
	}
	text, err := os.ReadFile(d.path(url, ".json"))
	if err != nil {
		return data, fresh, nil
	}
	var m meta
	sum := sha256.Sum256(data)
	if json.Unmarshal(text, &m) != nil || m.URL != url || m.SHA256 != hex.EncodeToString(sum[:]) {
		return data, fresh, nil
	}
	return data, m, nil
}

// store keeps a download. With nil data only its meta is written anew.
func (d diskCache) store(data []byte, m meta) error {
	if d.dir == "" {
		return nil
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	if data != nil {
		if err := pki.WriteFileAtomic(d.path(m.URL, ".crl"), data, 0o600); err != nil {
			return err
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return pki.WriteFileAtomic(d.path(m.URL, ".json"), text, 0o600)
}

// pause is how long to wait for the next try: the interval after a success,
// else one second, doubled with each failure, up to the interval. A tenth of
// jitter either way keeps many hosts from asking at once.
func pause(interval time.Duration, failures int) time.Duration {
	d := interval
	if failures > 0 {
		d = min(interval, firstRetry<<min(failures-1, 20))
	}
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}
