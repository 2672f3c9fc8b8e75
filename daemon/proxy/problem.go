package proxy

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// problem is a response of our own as an RFC 9457 problem document.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

func (f *fault) body() []byte {
	detail := f.detail
	if f.hidden {
		detail = f.reason.Sentence()
	}
	b, err := json.Marshal(problem{http.StatusText(f.status), f.status, string(f.reason), detail})
	if err != nil {
		return nil // four plain fields always encode
	}
	return append(b, '\n')
}

// write sends the response through a server of the standard library's kind.
func (f *fault) write(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	clear(h)
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(f.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(f.body())
	}
}

// render is the whole HTTP/1.1 response.
func (f *fault) render(head, closes bool) []byte {
	body := f.body()
	b := append([]byte("HTTP/1.1 "), strconv.Itoa(f.status)...)
	b = append(b, ' ')
	b = append(b, http.StatusText(f.status)...)
	b = append(b, "\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	if closes {
		b = append(b, "\r\nConnection: close"...)
	}
	b = append(b, "\r\n\r\n"...)
	if head {
		return b
	}
	return append(b, body...)
}
