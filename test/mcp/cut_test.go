package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"cyphers.ai/tlsmcp/test/mcp/node"
)

// cutWithin is how long a call may go on once its agent's revocation is in
// force, on a machine that has nothing else to do.
const cutWithin = 50 * time.Millisecond

// underway is a call that is under way: its agent's certificate, and what tells
// that it has ended.
type underway struct {
	serial *big.Int
	ended  <-chan time.Time
}

// TestRevokedAgentsCallIsCut: a call that is under way ends with an error at its
// client, and its server's process ends, at once when the sidecar has read that
// the agent is revoked. What else the machine does must not fail it, so the best
// of a few tries counts.
func TestRevokedAgentsCallIsCut(t *testing.T) {
	stdio := func(*testing.T) string { return stdioConfig(nil, npm.Server("everything"), "stdio") }
	streamable := func(t *testing.T) string {
		return fmt.Sprintf("[backend]\nprotocol = \"mcp\"\naddress = %q\n%s", httpServer(t, npm.Server("everything"), "streamableHttp"), policy)
	}
	for _, tt := range []struct {
		rule   string
		config func(*testing.T) string
		call   func(*testing.T, *world) underway
	}{
		{"stdio", stdio, callDirectly},
		{"stdio, through the bridge", stdio, callThroughBridge},
		{"streamable HTTP", streamable, callDirectly},
		{"streamable HTTP, through the bridge", streamable, callThroughBridge},
		{"streamable HTTP, through the bridge over HTTP", streamable, callThroughListeningBridge},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			w, best := start(t, tt.config(t)), time.Hour
			var revoked []*big.Int
			for range 5 {
				client, process := cutCall(t, w, &revoked, tt.call)
				t.Logf("from the revocation on: the client's error after %v, its server's process gone after %v", client, process)
				if best = min(best, max(client, process)); best < cutWithin || t.Failed() {
					break
				}
			}
			if best >= cutWithin {
				t.Errorf("the best of five took %v, want less than %v", best, cutWithin)
			}
		})
	}
}

// cutCall revokes an agent in the middle of a call. It returns when the client
// had its error and when the server's process was gone (0 if it had none of its
// own), from the moment that the sidecar says it read the list.
func cutCall(t *testing.T, w *world, revoked *[]*big.Int, begin func(*testing.T, *world) underway) (client, process time.Duration) {
	before := below(w.cmd.Process.Pid)
	r := begin(t, w)
	own := slices.DeleteFunc(below(w.cmd.Process.Pid), func(pid int) bool { return slices.Contains(before, pid) })
	if (len(own) > 0) != (len(before) > 0) { // there is a helper where there are processes for sessions
		t.Fatalf("processes %v, and before the session %v", own, before)
	}
	gone := make(chan time.Time, 1)
	go func() {
		for deadline := time.Now().Add(patience); slices.ContainsFunc(own, alive) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		gone <- time.Now()
	}()
	*revoked = append(*revoked, r.serial)
	number := int64(len(*revoked) + 1)
	w.revoke(number, *revoked...)
	var read struct{ Time time.Time }
	if err := json.Unmarshal([]byte(w.await(`"CRL file reloaded"`, fmt.Sprintf(`"crl_number":"%d"`, number))), &read); err != nil {
		t.Fatal(err)
	}
	client = (<-r.ended).Sub(read.Time)
	if len(own) > 0 {
		process = (<-gone).Sub(read.Time)
	}
	w.await(`"mcp call"`, `"target":"trigger-long-running-operation"`, `"outcome":"cut"`, `"reason":"revoked"`, fmt.Sprintf(`"serial":"%s"`, r.serial.Text(16)))
	return client, process
}

// long is a call that says every tenth of a second how far it is.
func long() object {
	return object{"name": "trigger-long-running-operation", "arguments": object{"duration": 60, "steps": 600}}
}

// callDirectly begins a call as a plain client of the sidecar.
func callDirectly(t *testing.T, w *world) underway {
	a, ended := w.agent("full"), make(chan time.Time, 1)
	a.initialize(t, "2025-11-25")
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		params := long()
		params["_meta"] = object{"progressToken": "p"}
		result, _, _ := a.try(ctx, "tools/call", params) // its connection may end before it is told why
		at := time.Now()
		if result != nil || ctx.Err() != nil {
			t.Errorf("the call was not cut: %v, %v", result, ctx.Err())
		}
		ended <- at
	}()
	for deadline := time.Now().Add(patience); !a.has(`"notifications/progress"`); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the call did not begin")
		}
	}
	return underway{a.leaf.Cert.SerialNumber, ended}
}

// callThroughBridge begins a call as the official SDK's client of the bridge.
func callThroughBridge(t *testing.T, w *world) underway {
	return callOver(t, w, newSDK(t, w.connectLine("full")...))
}

// callThroughListeningBridge is callThroughBridge for a client that speaks HTTP.
func callThroughListeningBridge(t *testing.T, w *world) underway {
	return callOver(t, w, newSDKAt(t, w.bridged("full")))
}

func callOver(t *testing.T, w *world, c *sdk) underway {
	ended := make(chan time.Time, 1)
	c.do("connect")
	go func() {
		_, err := c.try("callTool", long())
		at := time.Now()
		var e *node.ClientError
		if !errors.As(err, &e) || e.Code != -31403 { // that it is refused; why, the sidecar's audit says
			t.Errorf("the call got %v", err)
		}
		ended <- at
	}()
	c.awaitHeard(`"progress"`)
	return underway{w.serialOf("full"), ended}
}
