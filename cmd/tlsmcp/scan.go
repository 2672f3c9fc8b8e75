package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"cyphers.ai/tlsmcp/pkg/pki"
	"cyphers.ai/tlsmcp/pkg/scan"
	"cyphers.ai/tlsmcp/pkg/scan/scanfmt"
	"cyphers.ai/tlsmcp/pkg/text"
	"cyphers.ai/tlsmcp/pkg/version"
)

// scanCommand is `tlsmcp scan` with its flags.
type scanCommand struct {
	s       stdio
	cmd     *cobra.Command
	options scan.Options

	list, format, failOn    string
	json, all               bool
	sni, address, startTLS  string
	caFile, certFile, keyOf string
	web                     string
	jobs                    int
}

// newScan is `tlsmcp scan`.
func newScan(s stdio) *cobra.Command {
	c := &scanCommand{s: s}
	c.cmd = &cobra.Command{Use: "scan HOST[:PORT]...", Short: "Look at TLS servers from outside, and say what is wrong with them",
		Long: `scan looks at any TLS server as a client may: protocols, cipher suites, key
exchange groups, certificate, client certificates, sessions, and what older
versions need to be safe. It changes nothing, sends nothing that a sound client
would not send, and needs no daemon.

A target is HOST, HOST:PORT or [IPV6]:PORT; the port is 443. Servers that begin
TLS later are smtp://HOST and postgres://HOST, or --starttls. The grade is that
of the [cyphers] Score over the rows that show from outside.

Exit codes: 0 nothing at --fail-on or above, 1 findings, 2 usage, 3 a target
cannot be reached or not be measured whole; findings come first.`,
		Example: `  tlsmcp scan example.org
  tlsmcp scan --expect-mtls --ca ca.pem payments.internal:8443
  tlsmcp scan --starttls postgres --format sarif db.internal > scan.sarif
  tlsmcp scan --targets fleet.txt --fail-on medium`,
		RunE: func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), args) }}
	c.flags()
	return c.cmd
}

func (c *scanCommand) flags() {
	f := c.cmd.Flags()
	f.StringVar(&c.list, "targets", "", "a file with one target a line, # for comments; - is the standard input")
	f.StringVar(&c.options.Profile, "profile", scan.DefaultProfile, "what to hold the server against: "+strings.Join(scan.Profiles(), " or "))
	f.StringVar(&c.format, "format", "text", strings.Join(scanfmt.Formats(), ", "))
	f.BoolVar(&c.json, "json", false, "the same as --format json")
	f.StringVar(&c.failOn, "fail-on", string(scan.High), "exit with 1 from this severity on: critical, high, medium, low or none")
	f.BoolVar(&c.all, "all", false, "in text: all evidence, and every check by itself")
	f.BoolVar(&c.options.ExpectMTLS, "expect-mtls", false, "it is a finding when the server does not insist on a client certificate, or takes one of a stranger")
	f.StringVar(&c.caFile, "ca", "", "file with the CAs to trust, in PEM (default: those of the system)")
	f.StringVar(&c.certFile, "cert", "", "client certificate, for servers that insist on one")
	f.StringVar(&c.keyOf, "key", "", "its private key")
	f.StringVar(&c.sni, "sni", "", "server name to ask for and to expect, instead of HOST")
	f.StringVar(&c.address, "address", "", "where to connect, instead of what HOST resolves to")
	f.StringVar(&c.startTLS, "starttls", "", "how to come to TLS: smtp or postgres")
	f.StringVar(&c.web, "web", string(scan.WebAuto), "the checks for web servers: auto (on port 443), on or off")
	f.IntVar(&c.options.HTTPPort, "http-port", 0, "where plain HTTP must redirect from (default: 80 for port 443)")
	f.StringVar(&c.options.Resolver, "resolver", "", "HOST:PORT of the DNS server for CAA (default: the system's)")
	f.DurationVar(&c.options.Timeout, "timeout", 5*time.Second, "for one connection")
	f.DurationVar(&c.options.Limit, "limit", time.Minute, "for all of one target")
	f.IntVar(&c.options.Parallel, "parallel", 4, "connections to one target at the same time")
	f.IntVar(&c.options.MaxConnections, "max-connections", 1500, "to one target in all")
	f.IntVar(&c.jobs, "jobs", 4, "targets at the same time")
	// Other commands have a --format with other words, so it is not in
	// addCompletions. The error is for a flag that is not there.
	_ = c.cmd.RegisterFlagCompletionFunc("format", words(scanfmt.Formats()...).forShell)
}

func (c *scanCommand) run(ctx context.Context, args []string) error {
	failOn, err := c.check()
	if err != nil {
		return err
	}
	targets, err := c.targets(args)
	if err != nil {
		return err
	}
	if err := c.credentials(); err != nil {
		return err
	}
	progress := newScanProgress(c.s.err, len(targets))
	c.options.Progress = progress.show
	reports := make([]*scan.Report, len(targets))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(c.jobs)
	for i, t := range targets {
		g.Go(func() (err error) {
			reports[i], err = scan.Scan(gctx, t, c.options)
			progress.finished()
			return err
		})
	}
	err = g.Wait()
	progress.clear()
	if err != nil {
		return usageError(c.cmd, "%w", err)
	}
	run := scanfmt.NewRun(version.Get().Version, c.options.Profile, failOn, reports)
	if err := scanfmt.Write(c.s.out, run, c.format, scanfmt.Style{Colour: colours(c.s.out), All: c.all, Width: widthOf(c.s.out), ASCII: terminal(c.s.out) && !utf8Locale()}); err != nil {
		return err
	}
	return verdict(reports, failOn)
}

// verdict is the exit code: a finding outranks what could not be measured.
func verdict(reports []*scan.Report, failOn scan.Severity) error {
	if slices.ContainsFunc(reports, func(r *scan.Report) bool { return r.Worst(failOn) }) {
		return &failure{code: exitRefused}
	}
	if slices.ContainsFunc(reports, func(r *scan.Report) bool { return r.State != scan.Complete }) {
		return &failure{code: exitUnreachable}
	}
	return nil
}

// check holds the flags to what they may be. The severity is empty for none: no
// finding is as bad as that.
func (c *scanCommand) check() (failOn scan.Severity, err error) {
	if c.json {
		if c.cmd.Flags().Changed("format") && c.format != "json" {
			return "", usageError(c.cmd, "--json and --format %s contradict each other", c.format)
		}
		c.format = "json"
	}
	oneOf := func(flag, value string, allowed ...string) {
		if err == nil && !slices.Contains(allowed, value) {
			err = &failure{exitUsage, fmt.Errorf("--%s is %q", flag, value), "it is one of " + strings.Join(allowed, ", ")}
		}
	}
	oneOf("format", c.format, scanfmt.Formats()...)
	oneOf("profile", c.options.Profile, scan.Profiles()...)
	oneOf("fail-on", c.failOn, "critical", "high", "medium", "low", "none")
	oneOf("web", c.web, "auto", "on", "off")
	oneOf("starttls", c.startTLS, "", "smtp", "postgres")
	for flag, n := range map[string]int{"parallel": c.options.Parallel, "jobs": c.jobs, "max-connections": c.options.MaxConnections} {
		if err == nil && n < 1 {
			err = &failure{exitUsage, fmt.Errorf("--%s is %d", flag, n), "it is at least 1"}
		}
	}
	for flag, d := range map[string]time.Duration{"timeout": c.options.Timeout, "limit": c.options.Limit} {
		if err == nil && d <= 0 {
			err = &failure{exitUsage, fmt.Errorf("--%s is %s", flag, d), `it is a time, such as "5s"`}
		}
	}
	c.options.Web = scan.Web(c.web)
	if c.failOn == "none" {
		return "", err
	}
	return scan.Severity(c.failOn), err
}

// targets are those of the command line, then those of the file.
func (c *scanCommand) targets(args []string) (targets []scan.Target, err error) {
	lines, err := c.listed()
	if err != nil {
		return nil, err
	}
	for _, text := range slices.Concat(args, lines) {
		t, err := scan.ParseTarget(text)
		if err != nil {
			return nil, &failure{exitUsage, err, "a target is HOST, HOST:PORT, [IPV6]:PORT, smtp://HOST or postgres://HOST"}
		}
		if c.startTLS != "" {
			t.StartTLS = scan.StartTLS(c.startTLS)
		}
		t.ServerName, t.Address = c.sni, c.address
		targets = append(targets, t)
	}
	switch {
	case len(targets) == 0 && c.list != "":
		return nil, &failure{exitUsage, fmt.Errorf("%s lists no target", c.list), "one target a line"}
	case len(targets) == 0:
		return nil, &failure{exitUsage, errors.New("no target"), "tlsmcp scan HOST[:PORT], or --targets FILE"}
	case len(targets) > 1 && (c.sni != "" || c.address != ""):
		return nil, &failure{exitUsage, errors.New("--sni and --address are for one target"), "scan the targets one by one"}
	}
	return targets, nil
}

func (c *scanCommand) listed() (lines []string, err error) {
	if c.list == "" {
		return nil, nil
	}
	in := c.s.in
	if c.list != "-" {
		f, err := os.Open(c.list)
		if err != nil {
			return nil, unreadable(err)
		}
		defer f.Close()
		in = f
	}
	for lines, sc := []string(nil), bufio.NewScanner(in); ; {
		if !sc.Scan() {
			return lines, sc.Err()
		}
		line, _, _ := strings.Cut(sc.Text(), "#")
		lines = append(lines, strings.Fields(line)...)
	}
}

// credentials reads the CAs and the client certificate.
func (c *scanCommand) credentials() error {
	if c.caFile != "" {
		cas, err := pki.LoadBundle(c.caFile)
		if err != nil {
			return &failure{exitUsage, err, "--ca is a file with CA certificates in PEM"}
		}
		c.options.CAs = cas
	}
	if (c.certFile == "") != (c.keyOf == "") {
		return &failure{exitUsage, errors.New("--cert and --key belong together"), "give both"}
	}
	if c.certFile != "" {
		pair, err := pki.LoadKeyPair(c.certFile, c.keyOf)
		if err != nil {
			return &failure{exitUsage, err, "--cert and --key are PEM files of one client certificate"}
		}
		c.options.ClientCertificate = &pair
	}
	return nil
}

// scanProgress is a line on a terminal that says how far the scan is.
type scanProgress struct {
	w    io.Writer // nil: nobody watches
	of   int
	done chan int // holds how many are through; also the lock on w
}

func newScanProgress(w io.Writer, of int) *scanProgress {
	p := &scanProgress{of: of, done: make(chan int, 1)}
	p.done <- 0
	if terminal(w) {
		p.w = w
	}
	return p
}

func (p *scanProgress) show(now scan.Progress) {
	done := <-p.done
	defer func() { p.done <- done }()
	if p.w == nil {
		return
	}
	line := fmt.Sprintf("%s: %s, %s", now.Target, now.Stage, text.Plural(now.Connections, "connection"))
	if p.of > 1 {
		line = fmt.Sprintf("%d of %d  %s", done, p.of, line)
	}
	fmt.Fprintf(p.w, "\r\x1b[K%.100s", line)
}

func (p *scanProgress) finished() { p.done <- 1 + <-p.done }

func (p *scanProgress) clear() {
	if p.w != nil {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
