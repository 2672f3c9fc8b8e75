package node

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
)

// ClientOptions say what a client speaks to: a command over standard input and
// output, or an address.
type ClientOptions struct {
	Command []string          `json:"command,omitempty"`
	Env     map[string]string `json:"env,omitempty"`
	URL     string            `json:"url,omitempty"`
	Elicit  any               `json:"elicit,omitempty"` // what is answered to a question; nil: a name
	Stderr  io.Writer         `json:"-"`
}

// Client is a client of the official TypeScript SDK, in a process of its own.
type Client struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	ended chan struct{}

	mu    sync.Mutex
	next  int
	waits map[int]chan reply
	heard []string // whatever came that is no answer, as lines of JSON
}

type reply struct {
	Result json.RawMessage
	Error  *ClientError
}

// ClientError is what the SDK threw.
type ClientError struct {
	Code    int
	Message string
	Data    json.RawMessage
}

func (e *ClientError) Error() string { return fmt.Sprintf("%d: %s", e.Code, e.Message) }

// NewClient starts a client and connects it: it begins a session as the SDK
// does. Its result is what the server says of itself.
func (t *Tree) NewClient(o ClientOptions) (*Client, error) {
	script, err := t.Script("client.mjs")
	if err != nil {
		return nil, err
	}
	options, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	c := &Client{cmd: exec.Command(t.Node(), script, string(options)), ended: make(chan struct{}), waits: map[int]chan reply{}}
	c.cmd.Stderr = o.Stderr
	if o.Stderr == nil {
		c.cmd.Stderr = os.Stderr
	}
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go c.read(out)
	return c, nil
}

func (c *Client) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var m struct {
			ID int
			reply
		}
		line := lines.Text()
		_ = json.Unmarshal([]byte(line), &m) // what is no JSON is heard
		c.mu.Lock()
		if w := c.waits[m.ID]; w != nil {
			delete(c.waits, m.ID)
			w <- m.reply
		} else {
			c.heard = append(c.heard, line)
		}
		c.mu.Unlock()
	}
	_ = c.cmd.Wait()
	close(c.ended)
}

var errEnded = errors.New("the client ended")

// Do has the client run a method of the SDK's Client, such as callTool, and
// decodes its result into out, which may be nil.
func (c *Client) Do(ctx context.Context, out any, op string, args ...any) error {
	return c.do(ctx, out, map[string]any{"op": op, "args": append([]any{}, args...)})
}

// Abort is [Client.Do] that is given up at its first report of progress.
func (c *Client) Abort(ctx context.Context, op string, args ...any) error {
	return c.do(ctx, nil, map[string]any{"op": op, "args": append([]any{}, args...), "abort": true})
}

func (c *Client) do(ctx context.Context, out any, command map[string]any) error {
	wait := make(chan reply, 1)
	c.mu.Lock()
	c.next++
	id := c.next
	command["id"], c.waits[id] = id, wait
	line, err := json.Marshal(command)
	if err == nil {
		_, err = c.in.Write(append(line, '\n'))
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case r := <-wait:
		if r.Error != nil {
			return r.Error
		}
		if out == nil {
			return nil
		}
		return json.Unmarshal(r.Result, out)
	case <-c.ended:
		return errEnded
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", command["op"], ctx.Err())
	}
}

// Heard counts the lines of what came by itself that hold all the words.
func (c *Client) Heard(words ...string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
next:
	for _, line := range c.heard {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue next
			}
		}
		n++
	}
	return n
}

// Close ends the client as its user would, and waits for it.
func (c *Client) Close() {
	_ = c.in.Close()
	<-c.ended
}

// Kill ends it at once.
func (c *Client) Kill() {
	_ = c.cmd.Process.Kill()
	<-c.ended
}
