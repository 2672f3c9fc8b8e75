package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, "verifying")
	p.at(1, 2)
	p.end()
	if out.Len() > 0 {
		t.Errorf("on what is no terminal it prints %q", out.String())
	}
	p = &progress{w: &out, what: "verifying", started: time.Now()}
	p.at(1, 2)
	p.end()
	if out.Len() > 0 {
		t.Errorf("work that has just begun shows %q", out.String())
	}
	p = &progress{w: &out, what: "verifying", started: time.Now().Add(-3 * time.Second)}
	p.at(1<<30, 4<<30)
	p.at(2<<30, 4<<30) // too soon after the first
	if got := out.String(); strings.Count(got, "\r") != 1 || !strings.Contains(got, "verifying █████░░░░░░░░░░░░░░░  25%  1.0 GiB of 4.0 GiB  9s left") {
		t.Errorf("it shows %q", got)
	}
	p.end()
	if !strings.HasSuffix(out.String(), "\r\x1b[K") {
		t.Errorf("it stays: %q", out.String())
	}
}

func TestMeter(t *testing.T) {
	for part, want := range map[float64]string{0: "░░░░", 1: "████", 0.5: "██░░", 0.53: "██▏░", 2: "████", -1: "░░░░", 0.999: "████"} {
		if got := meter(part, 4); got != want {
			t.Errorf("%v: %s", part, got)
		}
	}
}
