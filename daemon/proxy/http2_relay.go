package proxy

import (
	"errors"
	"io"
	"net/http"

	"cyphers.ai/tlsmcp/daemon/sock"
)

// streamRelay passes a response body on to an HTTP/2 stream.
type streamRelay struct {
	st        *stream
	framing   framing
	remaining int64
	chunks    chunkReader
	guard     stallGuard
}

// smallWrite is below what x/net buffers of a response before it sends.
const smallWrite = 1 << 10

func (r *streamRelay) run() error {
	in := &r.st.b.in
	flush := http.NewResponseController(r.st.w).Flush
	for {
		done, err := r.take(in)
		if err != nil || done {
			return err
		}
		if err := r.guard.do(flush); err != nil {
			return err
		}
		if err := in.Fill(); err != nil {
			if errors.Is(err, io.EOF) && r.framing == byClose {
				return nil
			}
			return err
		}
	}
}

func (r *streamRelay) take(in *sock.Reader) (done bool, err error) {
	buf := in.Buffered()
	used := 0
	switch r.framing {
	case noBody:
		return true, nil
	case byLength:
		used = int(min(int64(len(buf)), r.remaining))
		r.remaining -= int64(used)
		done = r.remaining == 0
		err = r.write(buf[:used])
	case byClose:
		used = len(buf)
		err = r.write(buf)
	case byChunks:
		used, err = r.takeChunks(buf)
		done = r.chunks.done()
	}
	if used > 0 {
		in.Consume(used)
	}
	return done, err
}

func (r *streamRelay) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if len(b) < smallWrite {
		_, err := r.st.w.Write(b) // fits x/net's own buffer: it does not block
		return err
	}
	return r.guard.do(func() error {
		_, err := r.st.w.Write(b)
		return err
	})
}

func (r *streamRelay) takeChunks(buf []byte) (used int, err error) {
	for used < len(buf) && !r.chunks.done() {
		if r.chunks.state == chunkData {
			n := int(min(uint64(len(buf)-used), r.chunks.remaining))
			if err := r.write(buf[used : used+n]); err != nil {
				return used, err
			}
		}
		n, err := r.chunks.advance(buf[used:])
		if err != nil {
			return used, err
		}
		used += n
	}
	if !r.chunks.done() {
		return used, nil
	}
	fs, err := r.chunks.trailerFields()
	for _, f := range fs {
		if passesAsTrailer(f.name) {
			r.st.w.Header().Add(http.TrailerPrefix+string(f.name), string(f.value))
		}
	}
	return used, err
}
