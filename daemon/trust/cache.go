package trust

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	cacheShards = 16
	// perShard is how many entries a shard takes before its older half goes;
	// over all it is at most cacheShards * 2 * perShard = 4096 entries.
	perShard = 128
)

type cacheKey [sha256.Size]byte

// chainCache remembers verified chains by what the client presented. Failures
// are not remembered: they would let anybody fill it. Each shard has two
// generations; what is asked for moves to the newer one, and when that is full
// the older one is dropped. That is cheap, and close enough to "least recently
// used".
type chainCache struct{ shards [cacheShards]cacheShard }

type cacheShard struct {
	mu       sync.Mutex // guards both maps; held for a few map operations
	cur, old map[cacheKey][]*chain
}

func newChainCache() *chainCache {
	c := &chainCache{}
	for i := range c.shards {
		c.shards[i].cur = make(map[cacheKey][]*chain)
	}
	return c
}

func (c *chainCache) shard(key cacheKey) *cacheShard { return &c.shards[key[0]%cacheShards] }

// get finds the chains; nil when they are not known. The slice is shared.
func (c *chainCache) get(key cacheKey) []*chain {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(key)
}

func (s *cacheShard) find(key cacheKey) []*chain {
	if v, ok := s.cur[key]; ok {
		return v
	}
	v, ok := s.old[key]
	if ok {
		delete(s.old, key)
		s.store(key, v)
	}
	return v
}

func (s *cacheShard) store(key cacheKey, v []*chain) {
	if len(s.cur) >= perShard {
		s.old, s.cur = s.cur, make(map[cacheKey][]*chain)
	}
	s.cur[key] = v
}

// put remembers chains, unless another handshake did so in the meantime: then
// those are returned, so that one certificate is one [identity.Peer]. Chains
// that are out of their dates give way.
func (c *chainCache) put(key cacheKey, v []*chain, now time.Time) []*chain {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.find(key); anyValid(have, now) {
		return have
	}
	s.store(key, v)
	return v
}

func (c *chainCache) len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n += len(s.cur) + len(s.old)
		s.mu.Unlock()
	}
	return n
}
