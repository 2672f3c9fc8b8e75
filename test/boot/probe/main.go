// Command probe is what the boot test puts around tlsmcpd in the booted machine:
// a backend, and clients that knock without a pause and count who was not served.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "probe: %s\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	switch {
	case len(args) == 2 && args[0] == "backend":
		return backend(ctx, args[1])
	case len(args) == 3 && args[0] == "postgres":
		return postgres(ctx, args[1], args[2])
	case len(args) == 6 && args[0] == "load":
		return load(ctx, args[1], args[2], args[3], args[4], args[5])
	}
	return fmt.Errorf("usage: probe backend ADDRESS | probe postgres ADDRESS SIDECAR | probe load URL CA CERT KEY REPORT")
}

// backend answers with who called, as the sidecar says.
func backend(ctx context.Context, address string) error {
	s := &http.Server{Addr: address, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello %s\n", r.Header.Get("X-Tlsmcp-Identity"))
	})}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if err := s.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// postgres says yes to TLS as PostgreSQL does, and has the sidecar speak it.
func postgres(ctx context.Context, address, sidecar string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			var request [8]byte
			if _, err := io.ReadFull(c, request[:]); err != nil || string(request[:]) != "\x00\x00\x00\x08\x04\xd2\x16\x2f" {
				return
			}
			behind, err := net.Dial("tcp", sidecar)
			if err != nil {
				return
			}
			defer behind.Close()
			_, _ = io.WriteString(c, "S")
			go func() { _, _ = io.Copy(behind, c); _ = behind.(*net.TCPConn).CloseWrite() }()
			_, _ = io.Copy(c, behind)
		}()
	}
}

// report is what load found.
type report struct {
	Served  int      `json:"served"`
	Failed  int      `json:"failed"`
	Slowest float64  `json:"slowest_seconds"`
	Errors  []string `json:"errors"`
}

// load makes a connection for each request, from eight clients at once, until it
// is told to stop.
func load(ctx context.Context, url, ca, cert, key, to string) error {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	pem, err := os.ReadFile(ca)
	if err != nil {
		return err
	}
	roots.AppendCertsFromPEM(pem)
	var mu sync.Mutex
	var found report
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
				DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}}}
			for ctx.Err() == nil {
				began := time.Now()
				err := once(client, url)
				mu.Lock()
				found.Slowest = max(found.Slowest, time.Since(began).Seconds())
				if err == nil {
					found.Served++
				} else if found.Failed++; len(found.Errors) < 5 {
					found.Errors = append(found.Errors, err.Error())
				}
				mu.Unlock()
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	clients.Wait()
	text, err := json.Marshal(found)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}

func once(client *http.Client, url string) error {
	res, err := client.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	return err
}
