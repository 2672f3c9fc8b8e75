package daemon

import (
	"sync"
	"time"
)

// seen remembers which identities came in lately, so that each is reported now
// and then and not with every connection.
type seen struct {
	mu sync.Mutex // guards at
	at map[string]time.Time
}

const (
	seenAgain = time.Minute
	seenMost  = 10_000
)

// first tells whether an identity has not been seen for a minute.
func (s *seen) first(identity string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last, ok := s.at[identity]; ok && now.Sub(last) < seenAgain {
		return false
	}
	if s.at == nil || len(s.at) >= seenMost {
		s.at = map[string]time.Time{} // forgetting means to report once more
	}
	s.at[identity] = now
	return true
}
