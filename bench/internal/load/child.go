package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"
)

// The two sides speak JSON lines. The parent sends the Spec, then one empty
// line a run; the child answers a status line when it is open and one after
// each run. It holds its connections until its input ends, so a child never
// outlives its parent.
type status struct {
	Result *Result `json:",omitempty"`
	Error  string  `json:",omitempty"`
}

// Serve is the child: it reads a Spec and commands from in and writes to out,
// until in ends.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	if !lines.Scan() {
		return errors.Join(errors.New("no load was asked for"), lines.Err())
	}
	var spec Spec
	if err := json.Unmarshal(lines.Bytes(), &spec); err != nil {
		return fmt.Errorf("read load: %w", err)
	}
	reply := json.NewEncoder(out)
	g, err := Open(ctx, spec)
	if err != nil {
		return reply.Encode(status{Error: err.Error()})
	}
	defer g.Close()
	if err := reply.Encode(status{}); err != nil {
		return err
	}
	for lines.Scan() {
		r, err := g.Run(ctx)
		st := status{Result: &r}
		if err != nil {
			st = status{Error: err.Error()}
		}
		if err := reply.Encode(st); err != nil {
			return err
		}
	}
	return lines.Err()
}

// Child is a load generator in a process of its own.
type Child struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	replies *json.Decoder
}

// Start runs cmd, which must come to [Serve], and waits until its load is open.
// The caller closes it.
func Start(cmd *exec.Cmd, spec Spec) (*Child, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start load: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start load: %w", err)
	}
	// Once cmd's context has ended it is killed; this bounds the wait for it.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start load: %w", err)
	}
	c := &Child{cmd: cmd, in: in, replies: json.NewDecoder(out)}
	if err := json.NewEncoder(in).Encode(spec); err != nil {
		return nil, errors.Join(fmt.Errorf("start load: %w", err), c.Close())
	}
	if _, err := c.reply(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s load: %w", spec.Mode, err), c.Close())
	}
	return c, nil
}

// Run does the load once.
func (c *Child) Run() (Result, error) {
	if _, err := io.WriteString(c.in, "\n"); err != nil {
		return Result{}, fmt.Errorf("run load: %w", err)
	}
	st, err := c.reply()
	if err != nil {
		return Result{}, fmt.Errorf("run load: %w", err)
	}
	if st.Result == nil {
		return Result{}, errors.New("run load: the child gave no result")
	}
	return *st.Result, nil
}

// Close ends the child and its connections, and waits for it.
func (c *Child) Close() error {
	_ = c.in.Close() // a child that is gone already has closed it
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("load process: %w", err)
	}
	return nil
}

func (c *Child) reply() (status, error) {
	var st status
	if err := c.replies.Decode(&st); err != nil {
		return status{}, fmt.Errorf("the child answered nothing: %w", err)
	}
	if st.Error != "" {
		return status{}, errors.New(st.Error)
	}
	return st, nil
}
