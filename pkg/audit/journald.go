package audit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// JournalSocket is where journald takes entries.
const JournalSocket = "/run/systemd/journal/socket"

// JournaldSink sends entries to journald with native fields, by the journal's
// own protocol: one datagram for an entry, a field on a line, or with its length
// in front when it holds a line end.
type JournaldSink struct {
	Socket string // empty: [JournalSocket]
	Format Formatter
	conn   *net.UnixConn
}

// Send implements Sink.
func (s *JournaldSink) Send(_ context.Context, batch []Record) error {
	if s.conn == nil {
		path := s.Socket
		if path == "" {
			path = JournalSocket
		}
		c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			return fmt.Errorf("journald: %w", err)
		}
		s.conn = c
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return errors.Join(err, s.Close())
	}
	for i := range batch {
		m, err := s.entry(&batch[i])
		if err != nil {
			continue // it is in the log
		}
		if _, err := s.conn.Write(m); err != nil {
			return errors.Join(fmt.Errorf("journald: %w", err), s.Close())
		}
	}
	return nil
}

func (s *JournaldSink) entry(r *Record) ([]byte, error) {
	body, err := s.Format(r)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	add := func(name, value string) {
		if value == "" {
			return
		}
		if !strings.Contains(value, "\n") {
			b.WriteString(name + "=" + value + "\n")
			return
		}
		b.WriteString(name + "\n")
		n := uint64(len(value))
		for range 8 { // little-endian
			b.WriteByte(byte(n))
			n >>= 8
		}
		b.WriteString(value + "\n")
	}
	message := r.sentence()
	if r.Identity != "" {
		message += " (" + r.Identity + ")"
	}
	add("MESSAGE", message)
	add("PRIORITY", strconv.Itoa(r.syslogSeverity()))
	add("SYSLOG_IDENTIFIER", "tlsmcpd-audit")
	add("TLSMCP_AUDIT", string(body))
	for _, f := range [][2]string{
		{"SEQUENCE", strconv.FormatUint(r.Sequence, 10)}, {"KIND", string(r.Kind)}, {"IDENTITY", r.Identity}, {"OUTCOME", r.Outcome}, {"DETAIL", r.Detail},
		{"REMOTE", r.Remote}, {"SERIAL", r.Serial}, {"ACTOR", r.Actor}, {"METHOD", r.Method}, {"TARGET", r.Target},
	} {
		add("TLSMCP_"+f[0], f[1])
	}
	return []byte(b.String()), nil
}

// Close implements Sink.
func (s *JournaldSink) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	return err
}
