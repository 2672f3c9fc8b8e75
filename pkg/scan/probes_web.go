package scan

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// webSeen is what only web servers have.
type webSeen struct {
	alpn string // "": the server chose none
	http bool   // it answered in HTTP
	hsts string // the header; "": none

	redirect    string // what plain HTTP answers with, in words
	redirects   bool   // to https
	redirectErr error  // it could not be asked
	plainPort   int    // that was asked; 0: none

	caa    []string // records that name who may issue
	caaAt  string   // the name that they were found at
	caaErr error
	caaFor string // the name that was looked up; "": not looked up
}

// isWeb reports whether the checks for web servers are made.
func (p *probe) isWeb() bool {
	return p.target.StartTLS == Direct && (p.o.Web == WebOn || p.o.Web == WebAuto && p.target.port() == 443)
}

// request is the one request that a scan makes.
func (p *probe) request() string {
	return "GET / HTTP/1.1\r\nHost: " + p.target.name() + "\r\nUser-Agent: tlsmcp-scan\r\nAccept: */*\r\nConnection: close\r\n\r\n"
}

// web looks at ALPN, HSTS, the redirect from plain HTTP, and who may issue
// certificates for the name.
func (p *probe) web(ctx context.Context) error {
	if !p.isWeb() || p.seen.first == nil {
		return nil
	}
	w := &webSeen{}
	config := p.clientConfig()
	config.NextProtos = []string{"h2", "http/1.1"}
	offer := p.shake(ctx, config, then{})
	if err := offer.trouble(); err != nil && !p.raw() {
		return err
	}
	w.alpn = offer.state.NegotiatedProtocol
	config.NextProtos = []string{"http/1.1"}
	w.answer(p.shake(ctx, config, then{listen: true, say: p.request()}).data)
	p.redirect(ctx, w)
	p.caa(ctx, w)
	p.note(func(o *observation) { o.web = w })
	return nil
}

func (w *webSeen) answer(data []byte) {
	response, err := http.ReadResponse(bufio.NewReader(strings.NewReader(string(data))), nil)
	if err != nil {
		return
	}
	response.Body.Close()
	w.http, w.hsts = true, response.Header.Get("Strict-Transport-Security")
}

// redirect asks the plain port, and follows nothing.
func (p *probe) redirect(ctx context.Context, w *webSeen) {
	w.plainPort = p.o.HTTPPort
	if w.plainPort == 0 && p.target.port() == 443 {
		w.plainPort = 80
	}
	if w.plainPort == 0 {
		return
	}
	host, _, err := net.SplitHostPort(p.address)
	if err != nil {
		host = p.target.Host
	}
	ctx, cancel := context.WithTimeout(ctx, p.o.Timeout)
	defer cancel()
	conn, err := p.o.Dial(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(w.plainPort)))
	if err != nil {
		w.redirectErr = err
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(p.o.Timeout))
	if _, err := io.WriteString(conn, p.request()); err != nil {
		w.redirectErr = err
		return
	}
	response, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxData)), nil)
	if err != nil {
		w.redirectErr = err
		return
	}
	response.Body.Close()
	to := response.Header.Get("Location")
	w.redirects = response.StatusCode >= 300 && response.StatusCode < 400 && strings.HasPrefix(strings.ToLower(to), "https://")
	w.redirect = fmt.Sprintf("port %d answers %s", w.plainPort, response.Status)
	if to != "" {
		w.redirect += ", Location: " + to
	}
}

// caa climbs from the name to the top until somebody says who may issue
// (RFC 8659, section 3). Only public CAs ask.
func (p *probe) caa(ctx context.Context, w *webSeen) {
	name := p.target.sni()
	if !p.hasPublic() || !strings.Contains(name, ".") {
		return
	}
	server := p.o.Resolver
	if server == "" {
		config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil || len(config.Servers) == 0 {
			w.caaFor, w.caaErr = name, errors.New("no DNS server is configured")
			return
		}
		server = net.JoinHostPort(config.Servers[0], config.Port)
	}
	w.caaFor = name
	for at := dns.Fqdn(name); at != "."; {
		records, err := lookupCAA(ctx, server, at, p.o.Timeout)
		if err != nil {
			w.caaErr = err
			return
		}
		if len(records) > 0 {
			w.caa, w.caaAt = records, strings.TrimSuffix(at, ".")
			return
		}
		_, at, _ = strings.Cut(at, ".")
		if at == "" {
			return
		}
	}
}

func lookupCAA(ctx context.Context, server, name string, timeout time.Duration) (records []string, err error) {
	question := new(dns.Msg).SetQuestion(name, dns.TypeCAA)
	client := &dns.Client{Timeout: timeout}
	answer, _, err := client.ExchangeContext(ctx, question, server)
	if err == nil && answer.Truncated {
		client.Net = "tcp"
		answer, _, err = client.ExchangeContext(ctx, question, server)
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", server, err)
	}
	if answer.Rcode != dns.RcodeSuccess && answer.Rcode != dns.RcodeNameError {
		return nil, fmt.Errorf("ask %s: %s", server, dns.RcodeToString[answer.Rcode])
	}
	for _, rr := range answer.Answer {
		if caa, ok := rr.(*dns.CAA); ok && (caa.Tag == "issue" || caa.Tag == "issuewild") {
			records = append(records, caa.Tag+" "+caa.Value)
		}
	}
	return records, nil
}
