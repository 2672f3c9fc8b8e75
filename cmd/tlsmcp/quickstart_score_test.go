package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/pkg/score"
)

// quickstartScore follows the steps of docs/score.md that can be taken while a
// quickstart runs, and sees the rows that it lacked be passed.
func quickstartScore(t *testing.T, bin string) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dir := filepath.Join(shortDir(t), "q")
	cmd, _ := quickstartOf(ctx, t, bin, "--dir", dir)
	_, more := staysUp(t, cmd)
	var rest sync.WaitGroup
	rest.Go(func() { _, _ = io.Copy(io.Discard, more) })
	run := func(program string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(ctx, filepath.Join(bin, program), args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	judged := func() *score.Report {
		t.Helper()
		r := new(score.Report)
		if err := json.Unmarshal([]byte(run("tlsmcp", "score", "--json", "--socket", filepath.Join(dir, "orders.sock"))), r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	before := judged()
	alerts := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer alerts.Close()
	hub := []string{"--hub-socket", filepath.Join(dir, "hub.sock")}
	run("tlsmcp", append([]string{"cert", "list", "--format", "cyclonedx"}, hub...)...)
	run("tlsmcp", append([]string{"hub", "webhook", "create", alerts.URL, "--topic", "alert"}, hub...)...)
	run("tlsmcp", append([]string{"alert", "test"}, hub...)...)
	run("tlsmcp-hub", "ca", "export-root-key", "--data", filepath.Join(dir, "hub"), "--out", filepath.Join(dir, "root.key"))
	run("tlsmcp-hub", "ca", "take-root-offline", "--data", filepath.Join(dir, "hub"), "--yes")
	rows := []string{"K4", "O3", "Q3"}
	var after *score.Report
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		after = judged()
		open := 0
		for _, id := range rows {
			if c, _ := after.Check(id); c.Result != score.Pass {
				open++
			}
		}
		if open == 0 && after.Grade == "A" { // what is measured by and by counts, too
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after the steps %+v", after.Checks)
		}
	}
	for _, id := range rows {
		if c, _ := before.Check(id); c.Result != score.Fail {
			t.Errorf("before the steps %s was %s", id, c.Result)
		}
	}
	if after.Grade != "A" || after.Score < before.Score+3 {
		t.Errorf("from %d %s to %d %s", before.Score, before.Grade, after.Score, after.Grade)
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	rest.Wait()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
