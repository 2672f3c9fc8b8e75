package mcpgate

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"strings"
	"time"

	"cyphers.ai/tlsmcp/pkg/event"
)

const (
	stderrBurst   = 100     // lines at once
	stderrPerSec  = 10      // and afterwards
	maxStderrLine = 1 << 10 // bytes
)

// logStderr brings what a server writes to its standard error into the log, so
// much of it as a log can bear. What is left out is counted.
func logStderr(log *slog.Logger, r io.Reader) {
	in := bufio.NewReaderSize(r, 4<<10)
	left, at, dropped := float64(stderrBurst), time.Now(), 0
	tell := func() {
		if dropped > 0 {
			log.Warn("mcp server stderr, lines left out", event.KeyCount, dropped)
			dropped = 0
		}
	}
	defer tell()
	for {
		line, err := stderrLine(in)
		if err != nil {
			return
		}
		now := time.Now()
		left = min(stderrBurst, left+now.Sub(at).Seconds()*stderrPerSec)
		at = now
		if left < 1 {
			dropped++
			continue
		}
		left--
		tell()
		if line != "" {
			log.Info("mcp server stderr", event.KeyDetail, line)
		}
	}
}

// stderrLine reads a line; what is beyond the longest is dropped.
func stderrLine(in *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if room := maxStderrLine - len(line); room > 0 {
			line = append(line, part[:min(room, len(part))]...)
		}
		switch {
		case err == nil, errors.Is(err, io.EOF) && len(line) > 0:
			return strings.ToValidUTF8(strings.TrimRight(string(line), "\r\n"), "\ufffd"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", err
		}
	}
}
