package control

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"connectrpc.com/connect"

	"cyphers.ai/tlsmcp/ipc/hub"
	"cyphers.ai/tlsmcp/ipc/hub/v1/hubv1connect"
	"cyphers.ai/tlsmcp/ipc/problem"
	"cyphers.ai/tlsmcp/pkg/hubtrust"
)

// HubPath is where the Hub's service answers.
const HubPath = "/" + hubv1connect.HubServiceName + "/"

// RemoteHub passes calls of the Hub's service on to a Hub elsewhere, in the name
// of the caller, who brings a token. The sidecar lends its knowledge of the
// Hub's roots, and nothing of its own identity: no certificate is shown.
func RemoteHub(base string, roots func() []*x509.Certificate, log *slog.Logger) (http.Handler, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
			InsecureSkipVerify: true, // VerifyConnection does it: a Hub is an identity under its root, not a host name
			VerifyConnection: func(st tls.ConnectionState) error {
				return hubtrust.VerifyServer(roots(), st.PeerCertificates, time.Now())
			},
		},
	}
	proxy := &httputil.ReverseProxy{
		Transport: t, FlushInterval: -1, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.Out.Header.Del(hub.NodeHeader) // the caller is a person, never this node
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			refuse(w, r, problem.New(problem.Unavailable, "hub_unreachable", "tlsmcp status shows the link to the Hub", "the Hub at %s does not answer: %v", base, err))
		},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
			refuse(w, r, problem.New(problem.Unauthenticated, "no_token", "bring a token of your own: tlsmcp-hub token create makes one",
				"the Hub at %s is asked in your name, and there is no token", base))
			return
		}
		proxy.ServeHTTP(w, r)
	}), nil
}

// LocalHub answers calls of the Hub's service when the Hub is on this host: the
// kernel tells it who connects, so it has to be connected to directly.
func LocalHub(socket string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, problem.New(problem.MethodNotAllowed, "hub_is_local", "ask at its own socket, "+socket,
			"the Hub is on this host and wants to know from the kernel who asks"))
	})
}

// refuse answers in the protocol that the caller speaks.
func refuse(w http.ResponseWriter, r *http.Request, err error) {
	if calls := connect.NewErrorWriter(); calls.IsSupported(r) {
		_ = calls.Write(w, r, problem.Connect(err)) // a client that went away needs no answer
		return
	}
	problem.Write(w, err)
}
