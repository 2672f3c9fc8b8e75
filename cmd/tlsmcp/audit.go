package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "cyphers.ai/tlsmcp/ipc/control/v1"
	"cyphers.ai/tlsmcp/ipc/controlclient"
	hubv1 "cyphers.ai/tlsmcp/ipc/hub/v1"
	"cyphers.ai/tlsmcp/ipc/hubclient"
	"cyphers.ai/tlsmcp/ipc/hubjson"
	"cyphers.ai/tlsmcp/pkg/audit"
	"cyphers.ai/tlsmcp/pkg/config"
	"cyphers.ai/tlsmcp/pkg/text"
	"cyphers.ai/tlsmcp/pkg/version"
)

// newAudit is `tlsmcp audit`.
func newAudit(s stdio) *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Read, verify and export the audit log",
		Long: `audit reads the record of what the sidecar decided and what was done to it. The
sidecar is asked for it; verify and export also read a directory that is named,
such as a copy, without any sidecar.`}
	cmd.AddCommand(newAuditTail(s), newAuditVerify(s), newAuditExport(s))
	return group(cmd)
}

// period is a part of the log by time.
type period struct{ since, until string }

func (sp *period) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&sp.since, "since", "", `entries after this: a time ("2026-11-24T10:00:00Z", "2026-11-24"), or how long ago ("2h", "7d")`)
	f.StringVar(&sp.until, "until", "", "entries before this")
}

func (sp *period) times(cmd *cobra.Command) (after, before time.Time, err error) {
	if after, err = timeOf(sp.since, time.Now()); err == nil {
		before, err = timeOf(sp.until, time.Now())
	}
	if err != nil {
		return after, before, usageError(cmd, "%w", err)
	}
	return after, before, nil
}

// timeOf reads a time, or how long ago it was; zero for an empty text.
func timeOf(said string, now time.Time) (time.Time, error) {
	if said == "" {
		return time.Time{}, nil
	}
	if d, err := config.ParseDuration(said); err == nil {
		return now.Add(-time.Duration(d)), nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, said, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: write it like 24h, 7d, 2026-11-24 or 2026-11-24T06:00:00Z", said)
}

func stampOrNil(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func newAuditTail(s stdio) *cobra.Command {
	d := new(daemonConn)
	r := &controlv1.SearchAuditRequest{}
	var sp period
	var count uint32
	var follow bool
	cmd := &cobra.Command{Use: "tail", Short: "Show the last entries, and with -f what comes", Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			after, before, err := sp.times(cmd)
			if err == nil {
				err = knownKinds(cmd, r.GetKind())
			}
			switch {
			case err != nil:
				return err
			case count > 1000 || count == 0 && !follow:
				return usageError(cmd, "--lines %d: it shows 1 to 1000; tlsmcp audit export writes all", count)
			}
			r.After, r.Before, r.PageSize = stampOrNil(after), stampOrNil(before), max(count, 1)
			t := tailer{s: s, d: d, paint: painter(colours(s.out)), width: widthOf(s.out), quiet: count == 0}
			if err := t.last(cmd.Context(), r); err != nil || !follow {
				return err
			}
			return t.follow(cmd.Context(), r)
		}}
	d.flags(cmd)
	sp.flags(cmd)
	f := cmd.Flags()
	f.Uint32VarP(&count, "lines", "n", 20, "how many `N`, at most 1000; 0 with -f: only what comes")
	f.BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	f.StringVar(&r.Identity, "identity", "", "only of this identity")
	f.StringVar(&r.Kind, "kind", "", "only this kind: accepted, refused, closed, control, revocation …")
	f.StringVar(&r.Outcome, "outcome", "", "only with this outcome, such as revoked")
	return cmd
}

// knownKinds refuses a kind of event that there is not: it would never come.
func knownKinds(cmd *cobra.Command, kinds ...string) error {
	for _, k := range kinds {
		if k != "" && !slices.Contains(audit.Kinds(), k) {
			return usageError(cmd, "--kind %q is not known: it is one of %s", k, strings.Join(audit.Kinds(), ", "))
		}
	}
	return nil
}

// tailer prints entries.
type tailer struct {
	s     stdio
	d     *daemonConn
	paint painter
	width int    // of the terminal; 0: none
	at    uint64 // the last entry that was seen
	quiet bool   // what was before is not shown
}

func (t *tailer) last(ctx context.Context, r *controlv1.SearchAuditRequest) error {
	found, err := ask(ctx, t.d, (*controlclient.Client).SearchAudit, r)
	if err != nil {
		return err
	}
	for i := len(found.GetEvents()) - 1; i >= 0; i-- { // it comes newest first
		if t.quiet {
			t.at = found.GetEvents()[i].GetSequence()
			continue
		}
		if err := t.print(found.GetEvents()[i]); err != nil {
			return err
		}
	}
	if t.at == 0 { // nothing fits yet: what comes begins at the end
		end, err := ask(ctx, t.d, (*controlclient.Client).SearchAudit, &controlv1.SearchAuditRequest{PageSize: 1})
		if err == nil && len(end.GetEvents()) > 0 {
			t.at = end.GetEvents()[0].GetSequence()
		}
	}
	return nil
}

func (t *tailer) follow(ctx context.Context, r *controlv1.SearchAuditRequest) error {
	r.OldestFirst, r.PageSize = true, 1000
	for {
		r.PageToken = ""
		if t.at > 0 {
			r.PageToken = strconv.FormatUint(t.at, 10)
		}
		found, err := ask(ctx, t.d, (*controlclient.Client).SearchAudit, r)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range found.GetEvents() {
			if err := t.print(e); err != nil {
				return nil // nobody reads any more
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (t *tailer) print(e *controlv1.Event) error {
	t.at = e.GetSequence()
	const number = 8 // columns before the event
	width := t.width
	if width > 0 {
		width = max(width-number, 1)
	}
	event := strings.ReplaceAll(eventLine(e, t.paint, width), "\n", "\n"+strings.Repeat(" ", number))
	line := fmt.Sprintf("%s %s", t.paint.dim(fmt.Sprintf("%7d", e.GetSequence())), event)
	if t.d.json {
		raw, err := hubjson.Marshal(e)
		if err != nil {
			return err
		}
		line = string(raw)
	}
	_, err := fmt.Fprintln(t.s.out, line)
	return err
}

func newAuditVerify(s stdio) *cobra.Command {
	d := new(daemonConn)
	h := new(hubConn)
	var key, checkpoints string
	var withHub bool
	cmd := &cobra.Command{Use: "verify [DIR]", Short: "Find altered, removed and reordered entries", Args: atMost(1),
		Long: `verify reads the whole log and checks that each entry follows from the one before
it, and every signature. It finds entries that were altered, removed, added or
moved. That the end was cut off, or that the whole log was written anew, can be
told only by checkpoints that were kept elsewhere: --hub-checkpoints asks the Hub
for those that it keeps, --checkpoints reads them from a file.

Without DIR the sidecar is asked to verify its own log; with DIR the files are read
here, and no sidecar is needed.

Exit codes: 0 nothing is wrong, 1 something is.`,
		Example: `  tlsmcp audit verify
  tlsmcp audit verify /backup/audit --checkpoints held.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			h.daemon = *d
			if len(args) == 0 && !withHub && checkpoints == "" && key == "" {
				return verifyByDaemon(cmd.Context(), s, d)
			}
			dir := ""
			if len(args) == 1 {
				dir = args[0]
			} else {
				st, err := ask(cmd.Context(), d, (*controlclient.Client).GetStatus, &controlv1.GetStatusRequest{})
				if err != nil {
					return err
				}
				dir = st.GetAudit().GetDir()
			}
			bar := newProgress(s.err, "verifying")
			defer bar.end()
			o := audit.VerifyOptions{Key: key, Progress: func(done, total uint64) error {
				bar.at(done, total)
				return cmd.Context().Err()
			}}
			var err error
			if o.Held, err = heldCheckpoints(cmd.Context(), h, checkpoints, withHub); err != nil {
				return err
			}
			r, err := audit.Verify(dir, o)
			bar.end()
			if err != nil {
				return &failure{exitUsage, err, "name the directory of the log; reading it takes the right to"}
			}
			return printReport(s, d, r)
		}}
	d.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "the `ID` of the key that must have signed")
	f.StringVar(&checkpoints, "checkpoints", "", "`FILE` with checkpoints that were kept elsewhere, a JSON object on each line")
	f.BoolVar(&withHub, "hub-checkpoints", false, "hold the log to the checkpoints that the Hub keeps")
	f.StringVar(&h.url, "hub", os.Getenv("TLSMCP_HUB"), "the Hub's URL (TLSMCP_HUB); without it the Hub of this host's sidecar is asked")
	f.StringVar(&h.tokenFile, "token-file", os.Getenv("TLSMCP_TOKEN_FILE"), "file with a bearer token (TLSMCP_TOKEN_FILE)")
	return cmd
}

func verifyByDaemon(ctx context.Context, s stdio, d *daemonConn) error {
	c := d.connect()
	defer c.Close()
	stream, err := c.WatchVerifyAudit(ctx, &controlv1.WatchVerifyAuditRequest{})
	if err != nil {
		return explainControl(c, err)
	}
	defer stream.Close()
	bar := newProgress(s.err, "verifying")
	defer bar.end()
	var r *controlv1.VerifyAuditResponse
	for stream.Receive() {
		bar.at(stream.Msg().GetDone(), stream.Msg().GetTotal())
		r = stream.Msg().GetResult()
	}
	bar.end()
	if err := explainControl(c, stream.Err()); err != nil {
		return err
	}
	report := &audit.Report{Log: r.GetLog(), Files: int(r.GetFiles()), Entries: r.GetEntries(), First: r.GetFirst(), Last: r.GetLast(),
		FirstTime: auditTime(r.GetFirstTime()), LastTime: auditTime(r.GetLastTime()), Checkpoints: int(r.GetCheckpoints()),
		Keys: r.GetKeys(), Unsigned: r.GetUnsigned(), More: int(r.GetMoreFaults()), Faults: []audit.Fault{}}
	for _, f := range r.GetFaults() {
		report.Faults = append(report.Faults, audit.Fault{Problem: f})
	}
	return printReport(s, d, report)
}

// auditTime is a time as the log writes it; empty for none.
func auditTime(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return audit.Time{Time: t.AsTime()}.Text()
}

func printReport(s stdio, d *daemonConn, r *audit.Report) error {
	if d.json {
		raw, err := json.MarshalIndent(struct {
			OK bool `json:"ok"`
			*audit.Report
		}{r.OK() && r.Entries > 0, r}, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%s\n", raw)
	} else {
		paint := painter(colours(s.out))
		state := paint.good("✓ the log is whole")
		switch {
		case !r.OK():
			state = paint.bad("× " + text.Plural(len(r.Faults)+r.More, "fault"))
		case r.Entries == 0:
			state = paint.bad("× there is nothing in the log")
		}
		fmt.Fprintf(s.out, "%s: %s, %d to %d, log %s\n", state, text.Plural(r.Entries, "entry"), r.First, r.Last, r.Log)
		if r.Files > 0 && r.FirstTime != "" {
			fmt.Fprintf(s.out, "  from %s to %s, in %s\n", r.FirstTime, r.LastTime, text.Plural(r.Files, "file"))
		}
		fmt.Fprintf(s.out, "  %s, signed with the key %s; %s after the last one\n", text.Plural(r.Checkpoints, "checkpoint"), strings.Join(r.Keys, " and "), text.Plural(r.Unsigned, "entry"))
		if r.First > 1 {
			fmt.Fprintf(s.out, "  entries before %d were removed as configured, or with their files\n", r.First)
		}
		if r.Torn > 0 {
			fmt.Fprintf(s.out, "  an entry at the end is not finished (%s): the daemon is writing it, or was killed\n", text.Plural(r.Torn, "byte"))
		}
		for _, f := range r.Faults {
			fmt.Fprintf(s.out, "  %s %s\n", paint.bad("×"), text.Clean(f.String()))
		}
		if r.More > 0 {
			fmt.Fprintf(s.out, "  and %d more\n", r.More)
		}
	}
	switch {
	case !r.OK():
		return &failure{code: exitRefused}
	case r.Entries == 0:
		return &failure{exitRefused, errors.New("the log is empty: it was just made, or somebody emptied it"), "tlsmcp audit verify --hub-checkpoints knows what was in it"}
	}
	return nil
}

// heldCheckpoints are those that were kept elsewhere.
func heldCheckpoints(ctx context.Context, h *hubConn, file string, withHub bool) (held []audit.Check, err error) {
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return nil, &failure{exitUsage, err, "a checkpoint is a JSON object with log, sequence, hash, key and signature"}
		}
		defer f.Close()
		for dec := json.NewDecoder(f); ; {
			var c audit.Check
			if err := dec.Decode(&c); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, &failure{exitUsage, fmt.Errorf("%s: %w", file, err), "a checkpoint is a JSON object with log, sequence, hash, key and signature"}
			}
			held = append(held, c)
		}
	}
	if !withHub {
		return held, nil
	}
	// Those of this host, whatever its log calls itself now.
	st, err := ask(ctx, &h.daemon, (*controlclient.Client).GetHub, &controlv1.GetHubRequest{})
	if err != nil {
		return nil, err
	}
	r := &hubv1.SearchEventsRequest{Kind: "audit_checkpoint", NodeId: st.GetNodeId(), PageSize: 1000}
	for {
		page, err := call(ctx, h, (*hubclient.Client).SearchEvents, r)
		if err != nil {
			return nil, err
		}
		for _, e := range page.GetEvents() {
			c := audit.Check{Log: e.GetAttributes()["log"], Key: e.GetAttributes()["key"], Signature: e.GetAttributes()["signature"]}
			c.Sequence, err = strconv.ParseUint(e.GetAttributes()["sequence"], 10, 64)
			if err == nil {
				err = c.Hash.UnmarshalText([]byte(e.GetAttributes()["hash"]))
			}
			if err == nil {
				held = append(held, c)
			}
		}
		if r.PageToken = page.GetNextPageToken(); r.GetPageToken() == "" {
			return held, nil
		}
	}
}

func newAuditExport(s stdio) *cobra.Command {
	d := new(daemonConn)
	var sp period
	var format string
	cmd := &cobra.Command{Use: "export [DIR]", Short: "Write the log for others, as JSON, CEF, ECS or OCSF", Args: atMost(1),
		Example: `  tlsmcp audit export --since 7d --format ocsf > week.jsonl`,
		RunE: func(cmd *cobra.Command, args []string) error {
			after, before, err := sp.times(cmd)
			if err != nil {
				return err
			}
			write, err := audit.FormatterOf(format, version.Get().Version)
			if err != nil {
				return usageError(cmd, "%w", err)
			}
			if d.json && format != "json" {
				return usageError(cmd, "--json and --format %s exclude each other", format)
			}
			if len(args) == 1 {
				err := audit.Export(args[0], audit.Span{After: after, Before: before}, 0, func(line []byte) error {
					r, err := audit.Parse(line)
					if err != nil {
						return nil // what is broken is verify's to tell
					}
					out, err := write(&r)
					if err == nil {
						_, err = fmt.Fprintf(s.out, "%s\n", out)
					}
					return err
				})
				if err != nil {
					return &failure{exitUsage, err, "name the directory of the log; reading it takes the right to"}
				}
				return nil
			}
			return exportByDaemon(cmd.Context(), s, d, &controlv1.ExportAuditRequest{Format: format, After: stampOrNil(after), Before: stampOrNil(before)})
		}}
	d.flags(cmd)
	sp.flags(cmd)
	cmd.Flags().StringVar(&format, "format", "json", "json, cef, ecs or ocsf")
	return cmd
}

func exportByDaemon(ctx context.Context, s stdio, d *daemonConn, r *controlv1.ExportAuditRequest) error {
	c := d.connect()
	defer c.Close()
	stream, err := c.ExportAudit(ctx, r)
	if err != nil {
		return explainControl(c, err)
	}
	defer stream.Close()
	for stream.Receive() {
		if _, err := io.WriteString(s.out, stream.Msg().GetLines()); err != nil {
			return err
		}
	}
	return explainControl(c, stream.Err())
}
