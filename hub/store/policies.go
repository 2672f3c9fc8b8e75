package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Policy is one version of a service's policy. Every version is kept.
type Policy struct {
	ServiceID string
	Version   uint64
	Body      []byte // a Policy message
	UpdatedAt time.Time
	UpdatedBy string
}

const policyColumns = "service_id, version, body, updated_at, updated_by"

func scanPolicy(row scanner) (Policy, error) {
	var p Policy
	var version, at int64
	err := row.Scan(&p.ServiceID, &version, &p.Body, &at, &p.UpdatedBy)
	p.Version, p.UpdatedAt = uint64(version), moment(at)
	return p, err
}

// PutPolicy adds a version and gives its number. It must follow base, the
// version that the change was made from, unless force is set; otherwise it is
// [ErrConflict].
func (s *Store) PutPolicy(ctx context.Context, p Policy, base uint64, force bool) (uint64, error) {
	var version uint64
	err := s.write(ctx, func(t *tx) error {
		have, err := t.policy(ctx, p.ServiceID)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if have.Version != base && !force {
			return fmt.Errorf("policy of %q is at version %d: %w", p.ServiceID, have.Version, ErrConflict)
		}
		version = have.Version + 1
		err = t.exec(ctx, "INSERT INTO policies ("+policyColumns+") VALUES ("+marks(5)+")",
			p.ServiceID, int64(version), p.Body, micros(p.UpdatedAt), p.UpdatedBy)
		if duplicate(err) { // another replica was faster
			return fmt.Errorf("policy of %q: %w", p.ServiceID, ErrConflict)
		}
		if err != nil {
			return err
		}
		t.topics = append(t.topics, Policies)
		return t.enqueue(ctx, "policy", p.UpdatedAt, map[string]any{"service_id": p.ServiceID, "version": version, "updated_by": p.UpdatedBy})
	})
	return version, err
}

// Policy is the newest version; [ErrNotFound] when none was ever put.
func (s *Store) Policy(ctx context.Context, serviceID string) (Policy, error) {
	return s.read().policy(ctx, serviceID)
}

func (t *tx) policy(ctx context.Context, serviceID string) (Policy, error) {
	p, err := scanPolicy(t.row(ctx, "SELECT "+policyColumns+" FROM policies WHERE service_id = ? ORDER BY version DESC LIMIT 1", serviceID))
	return p, found(err)
}

// Policies are the newest version of each service's.
func (s *Store) Policies(ctx context.Context) ([]Policy, error) {
	return all(ctx, s.read(), scanPolicy, "SELECT "+policyColumns+` FROM policies p
		WHERE version = (SELECT MAX(version) FROM policies q WHERE q.service_id = p.service_id) ORDER BY service_id`)
}
