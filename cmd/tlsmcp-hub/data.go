package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"cyphers.ai/tlsmcp/hub/ca"
	"cyphers.ai/tlsmcp/hub/service"
	"cyphers.ai/tlsmcp/hub/store"
	"cyphers.ai/tlsmcp/pkg/pki"
)

// data says which Hub a command is about.
type data struct {
	dir   string
	store string

	trustDomain string // these count for a Hub that is made now
	keyType     string
	publicURL   string
}

func (d *data) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&d.dir, "data", defaultData, "directory of the Hub's state")
	f.StringVar(&d.store, "store", "", `database: sqlite:PATH or postgres://USER@HOST/DATABASE (default hub.db in the data directory)`)
}

func (d *data) newFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&d.trustDomain, "trust-domain", "tlsmcp.local", "SPIFFE trust domain of a Hub that is made now")
	f.StringVar(&d.keyType, "key-type", "ecdsa-p256", "keys of authorities that are made now: ecdsa-p256, ecdsa-p384 or ed25519")
	f.StringVar(&d.publicURL, "public-url", "", "https URL that others reach this Hub by; certificates name its CRL")
}

func (d *data) database() string {
	if d.store != "" {
		return d.store
	}
	return "sqlite:" + filepath.Join(d.dir, "hub.db")
}

// open opens the Hub's store and service. A Hub that is not there yet is made
// only when create is set.
func (d *data) open(ctx context.Context, log *slog.Logger, o service.Options, create bool) (*service.Service, *store.Store, error) {
	if err := d.exists(); err != nil && !create {
		return nil, nil, err
	}
	if create {
		if err := d.check(&o); err != nil {
			return nil, nil, usage{err}
		}
		if d.store == "" {
			if err := os.MkdirAll(d.dir, 0o700); err != nil {
				return nil, nil, err
			}
		}
	}
	o.Log, o.TrustDomain, o.PublicURL = log, d.trustDomain, d.publicURL
	st, err := store.Open(ctx, d.database(), store.Options{Log: log})
	if errors.Is(err, store.ErrNewer) {
		return nil, nil, hinted{err, "install that version again, or restore a backup from before it"}
	} else if err != nil {
		return nil, nil, err
	}
	s, err := service.New(ctx, st, o)
	if err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	return s, st, nil
}

// check looks at what counts for a Hub that is made now, before anything of it is.
func (d *data) check(o *service.Options) (err error) {
	if o.KeyType, err = ca.ParseKeyType(d.keyType); err != nil {
		return err
	}
	if err := ca.CheckTrustDomain(d.trustDomain); err != nil {
		return hinted{err, `--trust-domain is a name such as "prod.example"`}
	}
	if d.publicURL == "" {
		return nil
	}
	u, err := url.Parse(d.publicURL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return hinted{fmt.Errorf("--public-url %q is not of the form https://HOST:PORT", d.publicURL), "every certificate will name it: it is where others reach this Hub"}
	}
	return nil
}

// exists says that there is no Hub where one should be.
func (d *data) exists() error {
	if _, err := os.Stat(filepath.Join(d.dir, "hub.db")); d.store == "" && errors.Is(err, os.ErrNotExist) {
		return hinted{fmt.Errorf("there is no Hub in %s", d.dir), "name its directory with --data, or make one with tlsmcp-hub init"}
	}
	return nil
}

// with runs f with the service of a Hub that is there, as its admin.
func (d *data) with(cmd *cobra.Command, f func(ctx context.Context, s *service.Service) error) (err error) {
	s, st, err := d.open(cmd.Context(), nil, service.Options{}, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	return f(asAdmin(cmd.Context()), s)
}

// asAdmin is who can read the Hub's files: nothing is hidden from them.
func asAdmin(ctx context.Context) context.Context {
	return service.WithActor(ctx, service.Actor{Name: "uid:" + strconv.Itoa(os.Getuid()), Role: service.Admin})
}

// lock keeps a second Hub, and a restore, from a directory in use. It is let go
// when the file is closed.
func (d *data) lock() (*os.File, error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(d.dir, "hub.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, hinted{fmt.Errorf("a Hub is running on %s", d.dir), "stop it first, or use another directory"}
	}
	return f, nil
}

func newInit() *cobra.Command {
	var d data
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a Hub: its database, root and issuing CA",
		Long: `init makes a Hub's database with its root, issuing CA and revocation key, and
prints the root certificate. serve does the same by itself when there is none.`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := os.Stat(filepath.Join(d.dir, "hub.db")); err == nil && d.store == "" {
				return hinted{fmt.Errorf("%s holds a Hub already", d.dir), "use another --data"}
			}
			s, st, err := d.open(cmd.Context(), nil, service.Options{}, true)
			if err != nil {
				return errors.Join(err, d.discard())
			}
			_, err = cmd.OutOrStdout().Write(pki.EncodeCertificates(s.Root()))
			return errors.Join(err, st.Close())
		},
	}
	d.flags(cmd)
	d.newFlags(cmd)
	return cmd
}

// discard takes away what there is of a database that could not be made whole.
func (d *data) discard() error {
	if d.store != "" {
		return nil
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".migrate"} {
		if err := os.Remove(filepath.Join(d.dir, "hub.db"+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func newBackup() *cobra.Command {
	var d data
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Copy the database to a file, while the Hub runs",
		Long: `backup writes a consistent copy of the Hub's database to FILE, with mode 0600:
it holds the CA's keys. A Hub on PostgreSQL is backed up with pg_dump.`,
		Args: one("the file to write"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := d.exists(); err != nil {
				return err
			}
			st, err := store.Open(cmd.Context(), d.database(), store.Options{})
			if err != nil {
				return err
			}
			path, err := filepath.Abs(args[0])
			if err == nil {
				err = st.Backup(cmd.Context(), path)
			}
			return errors.Join(err, st.Close())
		},
	}
	d.flags(cmd)
	return cmd
}

func newRestore() *cobra.Command {
	var d data
	var force bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup in place of the database",
		Long: `restore puts a backup in place of the Hub's database. What was revoked since the
backup is not in it; sidecars that know of it keep it, because the restored
log gets a new id, which they do not take for the one that they know. Revoke
again what matters to those that join later.`,
		Args: one("the backup"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if d.store != "" {
				return usage{hinted{errors.New("restore is for a database file"), "restore PostgreSQL with pg_restore"}}
			}
			return d.restore(cmd.Context(), args[0], force)
		},
	}
	d.flags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "replace a database that is there; it is kept beside it, as hub.db.before-restore")
	return cmd
}

func (d *data) restore(ctx context.Context, from string, force bool) error {
	lock, err := d.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	target := filepath.Join(d.dir, "hub.db")
	if _, err := os.Stat(target); err == nil && !force {
		return hinted{fmt.Errorf("%s is there already", target), "--force replaces it"}
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	part := target + ".restoring"
	if err := pki.WriteFileAtomic(part, content, 0o600); err != nil {
		return err
	}
	// What is restored must be a Hub, before it takes the place of one.
	st, err := store.Open(ctx, "sqlite:"+part, store.Options{})
	if err == nil {
		_, err = service.New(ctx, st, service.Options{TrustDomain: "unused.invalid"})
		if err == nil {
			err = st.NewLog(ctx)
		}
		err = errors.Join(err, st.Close())
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s is no backup of a Hub: %w", from, err), os.Remove(part), os.Remove(part+".migrate"))
	}
	if err := setAside(target); err != nil {
		return err
	}
	return errors.Join(os.Rename(part, target), os.Remove(part+".migrate"))
}

// setAside moves a database away, to a name that nothing has. Its journal goes too,
// also one that a restore left that was killed here: SQLite would take it for the
// next database's.
func setAside(database string) error {
	there := func(path string) bool {
		_, err := os.Lstat(path)
		return err == nil
	}
	aside, next := database+".before-restore", database+".before-restore"
	for n := 2; there(next); n++ {
		aside, next = next, fmt.Sprintf("%s.before-restore.%d", database, n)
	}
	if there(database) {
		aside = next
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Rename(database+suffix, aside+suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func newCA() *cobra.Command {
	cmd := &cobra.Command{Use: "ca", Short: "The Hub's certificate authority", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(newCARoot(), newCAExport(), newCAOffline(), newCAImport())
	return cmd
}

func newCARoot() *cobra.Command {
	var d data
	cmd := &cobra.Command{Use: "root", Short: "Print the root certificate in PEM", Args: none, RunE: func(cmd *cobra.Command, _ []string) error {
		return d.with(cmd, func(_ context.Context, s *service.Service) error {
			_, err := cmd.OutOrStdout().Write(pki.EncodeCertificates(s.Root()))
			return err
		})
	}}
	d.flags(cmd)
	return cmd
}

func newCAExport() *cobra.Command {
	var d data
	var out string
	cmd := &cobra.Command{Use: "export-root-key", Short: "Write the root's private key to a file, to keep it elsewhere", Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return usage{hinted{errors.New("--out is missing"), "name the file for the key"}}
			}
			return d.with(cmd, func(ctx context.Context, s *service.Service) error {
				key, err := s.ExportRootKey(ctx)
				if err != nil {
					return err
				}
				return pki.WriteFileAtomic(out, key, 0o600)
			})
		}}
	d.flags(cmd)
	cmd.Flags().StringVar(&out, "out", "", "file to write, with mode 0600")
	return cmd
}

func newCAOffline() *cobra.Command {
	var d data
	var yes bool
	cmd := &cobra.Command{Use: "take-root-offline", Short: "Remove the root's private key from the Hub", Long: `take-root-offline removes the root's private key from the database, after
signing the root's CRL for as long as the root lasts. Export the key first: it
is needed to make the next issuing CA, once a year.`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return usage{hinted{errors.New("this cannot be undone without a copy of the key"), "tlsmcp-hub ca export-root-key --out FILE first, then say --yes"}}
			}
			return d.with(cmd, func(ctx context.Context, s *service.Service) error { return s.TakeRootOffline(ctx) })
		}}
	d.flags(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "the key is kept elsewhere")
	return cmd
}

func newCAImport() *cobra.Command {
	var d data
	var cert, key string
	cmd := &cobra.Command{Use: "import", Short: "Issue from a CA of one's own", Long: `import makes a CA that came from elsewhere the one that issues. The certificate
file holds the issuing CA's certificate first and those above it after it, the
root last. The key file is read once and kept in the database.`,
		Args: none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cert == "" || key == "" {
				return usage{hinted{errors.New("--cert and --key are needed"), "name the files of the issuing CA with its chain, and of its key"}}
			}
			chain, err := pki.LoadBundle(cert)
			if err != nil {
				return err
			}
			raw, err := os.ReadFile(key)
			if err != nil {
				return err
			}
			signer, err := pki.ParseKey(raw)
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			return d.with(cmd, func(ctx context.Context, s *service.Service) error {
				return s.ImportIssuer(ctx, []*x509.Certificate(chain), signer)
			})
		}}
	d.flags(cmd)
	cmd.Flags().StringVar(&cert, "cert", "", "PEM file: the issuing CA and its chain up to the root")
	cmd.Flags().StringVar(&key, "key", "", "PEM file: the issuing CA's private key")
	return cmd
}
