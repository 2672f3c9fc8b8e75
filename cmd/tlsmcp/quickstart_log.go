package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
)

// logged is what a quickstart reads of a line of the daemon's log.
type logged struct {
	Message  string       `json:"msg"`
	Remote   string       `json:"remote"`
	Identity string       `json:"identity"`
	Reason   event.Reason `json:"reason"`
	Detail   string       `json:"detail"`
	Duration float64      `json:"duration_ms"`
}

// kind is what the line is about; empty when it is not about a connection.
func (l logged) kind() event.Kind {
	kind, _ := strings.CutPrefix(l.Message, "connection ")
	switch k := event.Kind(kind); k {
	case event.Accepted, event.Refused, event.Closed:
		return k
	}
	return ""
}

// logReader follows the daemon's log.
type logReader struct {
	file string
	seen int64 // bytes
}

// next reads the whole lines that came since the last call.
func (r *logReader) next() ([]logged, error) {
	f, err := os.Open(r.file)
	if err != nil {
		return nil, fmt.Errorf("read tlsmcpd's log: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, r.seen, math.MaxInt64-r.seen))
	if err != nil {
		return nil, fmt.Errorf("read tlsmcpd's log: %w", err)
	}
	end := bytes.LastIndexByte(data, '\n') + 1
	r.seen += int64(end)
	var lines []logged
	for line := range bytes.Lines(data[:end]) {
		var l logged
		if json.Unmarshal(line, &l) == nil { // a panic's trace is no JSON
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// awaitEvent waits until the daemon's log has said what it did with the
// connection from an address.
func (q *quick) awaitEvent(ctx context.Context, remote string, kind event.Kind) (logged, error) {
	ctx, cancel := context.WithTimeout(ctx, stepPatience)
	defer cancel()
	r := logReader{file: q.logFile()}
	for {
		lines, err := r.next()
		if err != nil {
			return logged{}, err
		}
		for _, l := range lines {
			if l.Remote == remote && l.kind() == kind {
				return l, nil
			}
		}
		select {
		case <-ctx.Done():
			return logged{}, fmt.Errorf("tlsmcpd's log does not say that the connection from %s was %s", remote, kind)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// watch shows each decision of the daemon as it is made, until ctx ends. It is
// an error when the daemon ends first.
func (q *quick) watch(ctx context.Context) error {
	r := logReader{file: q.logFile()}
	if _, err := r.next(); err != nil { // what is there has been shown
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-q.daemon.ended:
			return fmt.Errorf("tlsmcpd ended: %w", q.daemon.outcome())
		case <-time.After(100 * time.Millisecond):
		}
		lines, err := r.next()
		if err != nil {
			return err
		}
		for _, l := range lines {
			q.decision(l)
		}
	}
}

func (q *quick) decision(l logged) {
	took := time.Duration(l.Duration * float64(time.Millisecond))
	who := "from " + l.Remote
	if l.Identity != "" {
		who = l.Identity
	}
	switch l.kind() {
	case event.Accepted:
		q.show.step(true, who, "let in", took)
	case event.Refused:
		q.show.step(false, who, "refused: "+string(l.Reason), took)
		q.show.notes(l.Detail)
	case event.Closed:
		if l.Reason == event.Revoked {
			q.show.step(false, who, "cut: "+string(l.Reason), took)
		}
	}
}

// whatNext prints commands that work as they stand.
func (q *quick) whatNext() {
	curl := func(cert, more string) string {
		s := "curl --cacert " + shellWord(q.file("ca.crt"))
		if cert != "" {
			s += " --cert " + shellWord(q.file(cert+".crt")) + " --key " + shellWord(q.file(cert+".key"))
		}
		return s + more + " https://" + q.listen + "/hello"
	}
	self := "tlsmcp"
	if path, err := os.Executable(); err == nil {
		self = shellWord(path)
	}
	q.show.section("It stays up. Try, in another terminal")
	q.show.command("let in", curl(allowedName, ""))
	q.show.command("refused: no_certificate", curl("", ""))
	q.show.command("refused: not_allowed", curl(strangerName, ""))
	q.show.command("refused: revoked", curl(lostName, ""))
	q.show.command("refused: tls_version", curl(allowedName, " --tls-max 1.2"))
	q.show.command("the handshake, as openssl sees it", fmt.Sprintf("openssl s_client -connect %s -CAfile %s -cert %s -key %s -brief </dev/null", q.listen,
		shellWord(q.file("ca.crt")), shellWord(q.file(allowedName+".crt")), shellWord(q.file(allowedName+".key"))))
	q.show.command("is it well, and what has it counted", "curl 'http://"+q.admin+"/readyz?verbose' http://"+q.admin+"/metrics")
	q.show.command("how it is, what happens at it, and the record of it", self+" status --socket "+shellWord(q.socket),
		self+" watch --socket "+shellWord(q.socket), self+" audit verify --socket "+shellWord(q.socket))
	q.show.command("the configuration in effect; edit the file, then reload it", self+" config show "+shellWord(q.file(configName)),
		fmt.Sprintf("kill -HUP %d", q.daemon.cmd.Process.Pid))
	q.show.command("its log, a line for each decision", "tail -f "+shellWord(q.logFile()))
	q.show.line("\n%s What clients get shows here as it happens:\n", q.show.paint(bold, "Ctrl-C stops everything and cleans up."))
}
