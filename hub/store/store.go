// Package store is the Hub's memory: certificates, the revocation log, tokens,
// nodes, policies, events and webhooks, in SQLite or PostgreSQL.
//
// There is one text of SQL for both, and one test suite that runs on both. With
// SQLite the database is one file in WAL mode with one writer; with PostgreSQL
// any number of Hubs share it. What must not interleave is ordered by the lock
// of one row: a revocation takes it for itself, an issue shares it. So the
// log's sequence has no gap, and a certificate of a name that is being revoked
// is either revoked with it or never issued.
//
// A commit wakes those that wait for a change ([Store.Subscribe]), in this
// process and, by LISTEN/NOTIFY, in the others. A wake-up carries nothing and
// may be lost; whoever waits looks at the tables again, and looks from time to
// time without one.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
	"modernc.org/sqlite" // and the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"cyphers.ai/tlsmcp/ipc/problem"

	"cyphers.ai/tlsmcp/pkg/event"
	"cyphers.ai/tlsmcp/pkg/revlog"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Errors to branch on.
var (
	ErrNotFound = errors.New("there is no such thing")
	ErrConflict = errors.New("it exists already, or changed meanwhile")
	ErrBlocked  = errors.New("the name is revoked")
	ErrUsed     = errors.New("the token was used already")
	ErrExpired  = errors.New("the token has expired")
	ErrNewer    = errors.New("a newer version of tlsmcp-hub made this database")
)

// Options are what a Store needs besides its URL. The zero value discards the
// log and reads the real clock.
type Options struct {
	Log *slog.Logger
	Now func() time.Time
}

// Store is an open database. It is safe for concurrent use.
type Store struct {
	log      *slog.Logger
	now      func() time.Time
	postgres bool
	url      string
	w, r     *sql.DB // with PostgreSQL the same; with SQLite one writer, and readers

	acknowledge map[int]*sql.Stmt // by how many acks it records

	wakers wakers
	stop   context.CancelFunc
	tasks  sync.WaitGroup
}

// Open opens a database, "sqlite:PATH" or "postgres://…", makes it when it is
// not there and brings its tables up to date.
func Open(ctx context.Context, where string, o Options) (*Store, error) {
	s := &Store{log: o.Log, now: o.Now, url: where}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", Shown(where), err), s.Close())
	}
	return s, nil
}

// Shown is a store's URL without its password, for people.
func Shown(where string) string {
	u, err := url.Parse(where)
	if err != nil {
		return "(a URL that cannot be read)"
	}
	return u.Redacted()
}

func (s *Store) open(ctx context.Context) error {
	var err error
	path, isFile := strings.CutPrefix(s.url, "sqlite:")
	switch {
	case isFile && path != "":
		err = s.openSQLite(path)
	case strings.HasPrefix(s.url, "postgres://"), strings.HasPrefix(s.url, "postgresql://"):
		s.postgres = true
		if s.w, err = sql.Open("pgx", s.url); err == nil {
			s.w.SetMaxOpenConns(16)
			s.w.SetMaxIdleConns(8)
			s.r = s.w
		}
	default:
		err = errors.New(`its form is "sqlite:PATH" or "postgres://USER@HOST/DATABASE"`)
	}
	if err != nil {
		return err
	}
	if err := s.w.PingContext(ctx); err != nil {
		return err
	}
	if err := s.migrate(ctx); err != nil {
		return err
	}
	if err := s.firstHead(ctx); err != nil {
		return err
	}
	many, few := ackRows()
	s.acknowledge = map[int]*sql.Stmt{}
	for _, n := range []int{many, few} {
		if s.acknowledge[n], err = s.prepareAcks(ctx, n); err != nil {
			return err
		}
	}
	background, stop := context.WithCancel(context.Background())
	s.stop = stop
	if s.postgres {
		s.tasks.Go(func() { s.listen(background) })
	}
	return nil
}

func (s *Store) openSQLite(path string) error {
	// The file holds keys: nobody else may read it, nor what SQLite puts beside
	// it, which takes the file's mode.
	// One that is there is not touched: to close a file drops every lock that
	// the process has on it (fcntl(2)), those of another connection too.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)" +
		"&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=case_sensitive_like(1)"
	if s.w, err = sql.Open("sqlite", dsn+"&_txlock=immediate"); err != nil {
		return err
	}
	s.w.SetMaxOpenConns(1)
	if s.r, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)"); err != nil {
		return err
	}
	s.r.SetMaxOpenConns(4)
	return nil
}

func (s *Store) migrate(ctx context.Context) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	unlock, err := s.lockMigration()
	if err != nil {
		return err
	}
	defer unlock()
	dialect, options := goose.DialectSQLite3, []goose.ProviderOption{goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger())}
	if s.postgres {
		// Replicas start together; one of them migrates.
		locker, err := lock.NewPostgresSessionLocker()
		if err != nil {
			return err
		}
		dialect, options = goose.DialectPostgres, append(options, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(dialect, s.w, dir, options...)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	// What a newer program made of the tables this one would misread in silence.
	has, knows, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if has > knows {
		return fmt.Errorf("%w: it has schema %d, and this program knows %d", ErrNewer, has, knows)
	}
	done, err := p.Up(ctx)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	for _, m := range done {
		s.log.Info("store migrated", event.KeySchema, m.Source.Version)
	}
	return nil
}

// lockMigration keeps other processes from migrating the same file: a Hub and a
// command beside it may open it at the same moment. PostgreSQL has a lock of its
// own. The lock is on a file beside it, for the reason in openSQLite.
func (s *Store) lockMigration() (unlock func(), err error) {
	path, isFile := strings.CutPrefix(s.url, "sqlite:")
	if !isFile {
		return func() {}, nil
	}
	f, err := os.OpenFile(path+".migrate", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// Close ends the store.
func (s *Store) Close() error {
	if s.stop != nil {
		s.stop()
		s.tasks.Wait()
	}
	var errs []error
	if s.w != nil {
		errs = append(errs, s.w.Close())
	}
	if s.r != nil && s.r != s.w {
		errs = append(errs, s.r.Close())
	}
	return errors.Join(errs...)
}

// Ping asks whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	var one int
	return s.r.QueryRowContext(ctx, "SELECT 1").Scan(&one)
}

// Backup writes a consistent copy of the database to a file while the Hub runs.
func (s *Store) Backup(ctx context.Context, path string) error {
	if s.postgres {
		return errors.New("the store is PostgreSQL: back it up with pg_dump")
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".backup-")
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	defer os.RemoveAll(tmp)
	part := filepath.Join(tmp, "hub.db")
	if _, err := s.w.ExecContext(ctx, "VACUUM INTO ?", part); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	f, err := os.OpenFile(part, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Sync(), f.Close(), os.Rename(part, path)); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

// Meta is a value of the store's own; [ErrNotFound] when it was never set.
func (s *Store) Meta(ctx context.Context, key string) (string, error) {
	var value string
	err := s.read().row(ctx, "SELECT value FROM meta WHERE key = ?", key).Scan(&value)
	return value, found(err)
}

// SetMetaOnce sets a value where there is none, and gives the one that is there
// then.
func (s *Store) SetMetaOnce(ctx context.Context, key, value string) (string, error) {
	err := s.write(ctx, func(t *tx) error {
		return t.exec(ctx, "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING", key, value)
	})
	if err != nil {
		return "", err
	}
	return s.Meta(ctx, key)
}

// SetMeta sets a value, whatever was there.
func (s *Store) SetMeta(ctx context.Context, key, value string) error {
	return s.write(ctx, func(t *tx) error {
		return t.exec(ctx, "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)
	})
}

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
	QueryRowContext(context.Context, string, ...any) *sql.Row
}

// tx runs statements, inside a transaction or not.
type tx struct {
	q        querier
	raw      *sql.Tx // of a write
	postgres bool
	topics   []Topic // to wake after the commit
}

func (s *Store) read() *tx { return &tx{q: s.r, postgres: s.postgres} }

// write runs f in a transaction, and again when PostgreSQL gave it up for
// another one's sake.
func (s *Store) write(ctx context.Context, f func(*tx) error) error {
	for attempt := 0; ; attempt++ {
		err := s.writeOnce(ctx, f)
		var pg *pgconn.PgError
		if attempt < 5 && errors.As(err, &pg) && (pg.Code == "40001" || pg.Code == "40P01") {
			continue
		}
		return noRoom(err)
	}
}

// noRoom says in words that the database's disk is full: who cannot revoke should
// read what to do, and not that something could not be done.
func noRoom(err error) error {
	var lite *sqlite.Error
	var pg *pgconn.PgError
	if errors.As(err, &lite) && lite.Code()&0xff == sqlite3.SQLITE_FULL || errors.As(err, &pg) && pg.Code == "53100" {
		return &problem.Error{Class: problem.Unavailable, Code: "store_full", Detail: "the disk of the Hub's database is full: nothing was changed",
			Hint: "make room where the Hub keeps its database, then do it again", Err: err}
	}
	return err
}

func (s *Store) writeOnce(ctx context.Context, f func(*tx) error) error {
	raw, err := s.w.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = raw.Rollback() }() // after a commit it does nothing
	t := &tx{q: raw, raw: raw, postgres: s.postgres}
	if err := f(t); err != nil {
		return err
	}
	for _, topic := range t.topics {
		if s.postgres {
			if err := t.exec(ctx, "SELECT pg_notify(?, ?)", channel, string(topic)); err != nil {
				return err
			}
		}
	}
	if err := raw.Commit(); err != nil {
		return err
	}
	for _, topic := range t.topics {
		s.wakers.wake(topic)
	}
	return nil
}

// consistent runs f on one state of the database.
func (s *Store) consistent(ctx context.Context, f func(*tx) error) error {
	var o *sql.TxOptions
	if s.postgres {
		o = &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
	}
	raw, err := s.r.BeginTx(ctx, o)
	if err != nil {
		return err
	}
	defer func() { _ = raw.Rollback() }()
	return f(&tx{q: raw, postgres: s.postgres})
}

// bound writes placeholders as the database wants them.
func (t *tx) bound(q string) string {
	if !t.postgres {
		return q
	}
	var b strings.Builder
	n := 0
	for i := range len(q) {
		if q[i] != '?' {
			b.WriteByte(q[i])
			continue
		}
		n++
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(n))
	}
	return b.String()
}

// lock makes a SELECT of rows take their lock. SQLite's transaction has it
// already.
func (t *tx) lock(q, how string) string {
	if t.postgres {
		q += " FOR " + how
	}
	return q
}

func (t *tx) exec(ctx context.Context, q string, args ...any) error {
	_, err := t.q.ExecContext(ctx, t.bound(q), args...)
	return err
}

// execPrepared runs a statement of the store's in a write.
func (t *tx) execPrepared(ctx context.Context, st *sql.Stmt, args ...any) error {
	_, err := t.raw.StmtContext(ctx, st).ExecContext(ctx, args...)
	return err
}

// changed runs a statement and counts the rows that it changed.
func (t *tx) changed(ctx context.Context, q string, args ...any) (int, error) {
	res, err := t.q.ExecContext(ctx, t.bound(q), args...)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	return int(n), err
}

func (t *tx) row(ctx context.Context, q string, args ...any) *sql.Row {
	return t.q.QueryRowContext(ctx, t.bound(q), args...)
}

// scanner is a row to read.
type scanner interface{ Scan(...any) error }

// all reads every row of a query.
func all[T any](ctx context.Context, t *tx, scan func(scanner) (T, error), q string, args ...any) ([]T, error) {
	rows, err := t.q.QueryContext(ctx, t.bound(q), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// found turns "no rows" into [ErrNotFound].
func found(err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

// duplicate tells whether an insert met a row of the same key.
func duplicate(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == "23505"
	}
	return err != nil && strings.Contains(err.Error(), "UNIQUE constraint failed")
}

// marks are the placeholders of a list: "?, ?, ?".
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// NewID makes an id that sorts by time.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func moment(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// firstHead makes the log's head when the database is new.
func (s *Store) firstHead(ctx context.Context) error {
	id := NewID()
	return s.write(ctx, func(t *tx) error {
		return t.exec(ctx, "INSERT INTO revlog_head (id, log_id, sequence, hash) VALUES (1, ?, 0, ?) ON CONFLICT (id) DO NOTHING",
			id, revlog.Genesis(id).String())
	})
}
