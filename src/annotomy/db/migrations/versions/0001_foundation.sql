-- The first schema. Sections follow the features in import order.
-- UIDs and keys are collate "C": prefix ranges can use their index and compare cheaply.
create extension if not exists pg_trgm;

-- jobs ---------------------------------------------------------------------------------------------------------------
create table jobs (
  id uuid primary key,
  kind text not null,
  payload jsonb not null,
  asker_id uuid not null,
  project_id uuid,
  state text not null default 'queued' check (state in ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
  priority integer not null default 0,
  attempt integer not null default 0,          -- counts starts; also the fencing token of the running attempt
  progress real not null default 0 check (progress between 0 and 1),
  message text not null default '',
  problem jsonb,
  cancel_requested boolean not null default false,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz
);
create index jobs_of_asker on jobs (asker_id, id);           -- ids sort by the time of their making
create index jobs_open on jobs (kind) where state in ('queued', 'running');

-- events -------------------------------------------------------------------------------------------------------------
create table events (
  id bigint generated always as identity primary key, -- in the order of insertion, which is not that of commit
  seq bigint unique,                           -- position in the feed, given after the commit: a reader never misses one
  type text not null,
  at timestamptz not null default now(),
  actor_id uuid not null,
  actor_name text not null,
  project_id uuid,
  object_kind text not null,
  object_id text not null,
  study_id bigint,                             -- the holding that it is about
  study_instance_uid text collate "C",         -- what the event hangs on: who does not see it does not see the event
  series_instance_uid text collate "C",
  data jsonb not null default '{}'
);
create index events_unnumbered on events (id) where seq is null;
create index events_of_project on events (project_id, seq);
create index events_of_actor on events (actor_id, seq);
create index events_of_object on events (object_kind, object_id, seq);

-- audit (docs/explanation/audit.md) ------------------------------------------------------------------------------------
-- No foreign keys: a record outlives what it speaks of. Changes write `audit_outbox` in their own transaction; the appender
-- moves it into the chain in one more. `content` is the canonical JSON text, sealed when it was written.
create table audit_outbox (
  id bigint generated always as identity primary key,
  content text not null,
  seal bytea not null
);
create table audit (
  seq bigint primary key,                      -- from 1, without gaps
  at timestamptz not null,
  actor_id uuid not null,
  actor_name text not null,
  actor_kind text not null,
  session_id uuid,
  key_id uuid,                                 -- the API key that was shown
  source text not null,                        -- network address, or the word of a process of ours
  action text not null,
  object_kind text not null,
  object_id text not null,
  study_instance_uid text collate "C" not null, -- what the object is or hangs on, or empty
  patient text not null,                       -- keyed pseudonym of the Patient ID, or empty
  project_id uuid,
  outcome text not null,
  reason text not null,
  request_id text not null,
  detail text not null,                        -- canonical JSON
  hash bytea not null                          -- HMAC over the record and the hash before it
);
create index audit_of_actor on audit (actor_id, seq);
create index audit_of_object on audit (object_id, seq);
create index audit_of_project on audit (project_id, seq);
create index audit_of_study on audit (study_instance_uid, seq) where study_instance_uid <> '';
create index audit_of_patient on audit (patient, seq) where patient <> '';
create index audit_by_time on audit (at);
create index audit_reasons on audit using gin (normalize(lower(reason), NFD) gin_trgm_ops) where reason <> '';
create table audit_checkpoints (
  seq bigint primary key,
  at timestamptz not null default now(),
  hash bytea not null,
  signature bytea not null                     -- Ed25519 over seq and hash
);
create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'the audit is append-only' using errcode = 'insufficient_privilege';
end $$;
-- The one way out of `audit`: a segment that is sealed, lies in a file, and was kept for its time. A row of it may be deleted
-- once the segment says `dropped_at`; it may say so only after `keep_until`, which is never less than two years (PIPA).
create table audit_segments (
  number integer primary key,                  -- from 1, without gaps
  month text not null,                         -- 2026-10 (UTC): the last month that it reaches into
  first_seq bigint not null,
  last_seq bigint not null,
  records bigint not null,
  first_at timestamptz not null,
  last_at timestamptz not null,
  previous_hash bytea not null,                -- of the record before the first
  last_hash bytea not null,
  content_sha256 bytea not null,               -- of the record lines in the file
  keep_until timestamptz not null,
  signature bytea not null,                    -- Ed25519 over all of the above
  blob_address text not null,                  -- the file: gzip of JSON lines
  blob_size bigint not null,
  sealed_at timestamptz not null default now(),
  dropped_at timestamptz,
  check (first_seq <= last_seq and records = last_seq - first_seq + 1)
);
create function guard_audit_segment() returns trigger language plpgsql as $$
begin
  if tg_op = 'INSERT' then
    if new.dropped_at is null
       and new.number = (select coalesce(max(number), 0) + 1 from audit_segments)
       and new.first_seq = (select coalesce(max(last_seq), 0) + 1 from audit_segments)
       and (select (count(*), max(at)) = (new.records, new.last_at) from audit where seq between new.first_seq and new.last_seq)
       and new.keep_until >= new.last_at + interval '2 years' then
      return new;
    end if;
  elsif tg_op = 'UPDATE' then
    if old.dropped_at is null and new.dropped_at is not null and old.keep_until <= now()
       and to_jsonb(new) - 'dropped_at' = to_jsonb(old) - 'dropped_at'
       and not exists (select from audit_segments where number < old.number and dropped_at is null) then
      return new;
    end if;
  end if;
  raise exception 'the audit is append-only' using errcode = 'insufficient_privilege';
end $$;
create trigger guarded before insert or update or delete on audit_segments for each row execute function guard_audit_segment();
create trigger never_emptied before truncate on audit_segments for each statement execute function refuse_change();
create function refuse_unless_dropped() returns trigger language plpgsql as $$
begin
  if tg_op = 'DELETE' and old.seq <= (select max(last_seq) from audit_segments where dropped_at is not null) then
    return old;
  end if;
  raise exception 'the audit is append-only' using errcode = 'insufficient_privilege';
end $$;
create trigger append_only before update or delete on audit for each row execute function refuse_unless_dropped();
create trigger never_emptied before truncate on audit for each statement execute function refuse_change();
create trigger append_only before update or delete on audit_checkpoints for each row execute function refuse_change();
create trigger never_emptied before truncate on audit_checkpoints for each statement execute function refuse_change();
create table audit_reviews (                   -- what a person looks through and signs each month
  month text primary key,                      -- 2026-10
  made_at timestamptz not null default now(),
  report text not null,                        -- canonical JSON, never changed
  signed_by_id uuid,
  signed_by text,
  signed_at timestamptz,
  note text not null default ''
);
create function refuse_review_change() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' and old.signed_at is null and new.signed_at is not null
     and (new.month, new.made_at, new.report) = (old.month, old.made_at, old.report) then
    return new;
  end if;
  raise exception 'a review is signed once and never changed' using errcode = 'insufficient_privilege';
end $$;
create trigger signed_once before update or delete on audit_reviews for each row execute function refuse_review_change();
create trigger never_emptied before truncate on audit_reviews for each statement execute function refuse_review_change();

-- http ---------------------------------------------------------------------------------------------------------------
create table idempotency_keys (
  principal_id uuid not null,
  key text not null,
  route text not null,
  fingerprint bytea not null,
  status integer not null,
  headers jsonb not null default '{}',
  body bytea not null,
  created_at timestamptz not null default now(),
  primary key (principal_id, route, key)
);
create index idempotency_keys_by_age on idempotency_keys (created_at);

-- identity -----------------------------------------------------------------------------------------------------------
create table users (
  id uuid primary key,
  username text not null,
  email text,
  display_name text not null default '',
  password_hash text,
  password_changed_at timestamptz,
  state text not null default 'active' check (state in ('pending', 'active', 'suspended', 'deleted')),
  is_admin boolean not null default false,
  is_service boolean not null default false,
  created_at timestamptz not null default now(),
  version integer not null default 1
);
create unique index users_username on users (lower(username));
create index users_email on users (lower(email));
create table sessions (                        -- one sign-in on one device: the family of its refresh tokens
  id uuid primary key,
  user_id uuid not null references users,
  client text not null default '',             -- User-Agent, shortened
  address text not null default '',
  methods text[] not null default '{}',        -- how it was proven (RFC 8176 words): pwd, otp, hwk, mfa, fed
  authenticated_at timestamptz not null default now(), -- the last proof, moved by step-up
  created_at timestamptz not null default now(),
  last_used_at timestamptz not null default now(),
  expires_at timestamptz not null,             -- the absolute limit; the idle limit counts from last_used_at
  revoked_at timestamptz,
  revoked_why text
);
create index sessions_of_user on sessions (user_id);
create table refresh_tokens (
  hash bytea primary key,                      -- SHA-256 of the token
  session_id uuid not null references sessions on delete cascade,
  parent bytea unique references refresh_tokens, -- unique: a token has one child at most, whatever the code does
  created_at timestamptz not null default now(),
  used_at timestamptz,
  child_salt bytea                             -- child = HMAC(this token, salt); forgotten when the child is used
);
create index refresh_tokens_of_session on refresh_tokens (session_id);
create table totp_factors (
  user_id uuid primary key references users,
  secret bytea not null,                       -- sealed (identity/seal.py)
  confirmed_at timestamptz,
  last_step bigint not null default 0,         -- the newest time step whose code was taken: each code serves once
  created_at timestamptz not null default now()
);
create table recovery_codes (
  user_id uuid not null references users,
  hash bytea not null,
  used_at timestamptz,
  primary key (user_id, hash)
);
create table passkeys (
  id uuid primary key,
  user_id uuid not null references users,
  credential_id bytea not null unique,
  public_key bytea not null,                   -- COSE
  sign_count bigint not null,
  name text not null,
  created_at timestamptz not null default now(),
  last_used_at timestamptz
);
create index passkeys_of_user on passkeys (user_id);
create table consumed_transactions (           -- signed transactions of sign-in and enrolment that were used
  jti text primary key,
  expires_at timestamptz not null
);
create table password_resets (
  hash bytea primary key,
  user_id uuid not null references users,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  used_at timestamptz
);
create table attempts (                        -- of names that exist and of names that do not, alike
  kind text not null,
  subject bytea not null,                      -- hash of what is counted: a name and an address, an address
  count integer not null,
  last_at timestamptz not null,
  blocked_until timestamptz,
  primary key (kind, subject)
);
create table external_identities (
  issuer text not null,
  subject text not null,
  user_id uuid not null references users,
  created_at timestamptz not null default now(),
  last_used_at timestamptz,
  primary key (issuer, subject)
);
create table api_keys (
  id uuid primary key,
  handle text collate "C" not null unique,     -- the middle part of the key: names it without opening anything
  user_id uuid not null references users,
  name text not null,
  hash bytea not null,
  scopes text[],                               -- null: all that its user may do
  project_ids uuid[],                          -- null: every project of its user
  addresses cidr[] not null default '{}',      -- empty: from anywhere
  created_at timestamptz not null default now(),
  last_used_at timestamptz,
  expires_at timestamptz,
  revoked_at timestamptz
);
create index api_keys_of_user on api_keys (user_id);
create table signing_keys (
  kid text primary key,
  private_key bytea not null,                  -- JWK, sealed (identity/seal.py)
  public_jwk jsonb not null,
  created_at timestamptz not null default now(),
  retired_at timestamptz
);

-- projects -----------------------------------------------------------------------------------------------------------
create table projects (
  id uuid primary key,
  name text not null,
  description text not null default '',
  inbox_of uuid unique references users,       -- the personal inbox of this user, else null
  ruled boolean not null default false,        -- has rules or blinded members: who sees what is decided for each audience
  created_by uuid not null,
  created_at timestamptz not null default now(),
  version integer not null default 1,
  unique (id, ruled)
);
create table project_roles (                   -- a project's own roles; those of every project stand in projects/roles.toml
  project_id uuid not null references projects on delete cascade,
  name text not null,
  label_en text not null,
  label_ko text not null,
  permissions text[] not null,
  created_at timestamptz not null default now(),
  primary key (project_id, name)
);
create table groups (
  id uuid primary key,
  name text not null unique,
  created_at timestamptz not null default now()
);
create table group_members (
  group_id uuid not null references groups on delete cascade,
  user_id uuid not null references users,
  primary key (group_id, user_id)
);
create index group_members_of_user on group_members (user_id);
create table project_groups (
  project_id uuid not null references projects on delete cascade,
  group_id uuid not null references groups on delete cascade,
  role text not null,
  valid_from timestamptz,
  expires_at timestamptz,
  granted_at timestamptz not null default now(),
  primary key (project_id, group_id)
);
create table project_rules (
  id uuid primary key,
  project_id uuid not null references projects on delete cascade,
  effect text not null check (effect in ('ALLOW', 'DENY', 'LIMIT')),
  level text not null check (level in ('STUDY', 'SERIES', 'INSTANCE')),
  attribute text not null,
  operator text not null check (operator in ('EQ', 'NE', 'CONTAINS', 'RANGE', 'IN', 'PRESENT')),
  value jsonb not null,                        -- [value], as it was sent
  terms text[] not null,                       -- the value as it is compared: normalised like the attributes
  role text,                                   -- null: everyone
  user_id uuid references users,
  valid_from timestamptz,
  expires_at timestamptz,
  created_by uuid not null,
  created_at timestamptz not null default now(),
  version integer not null default 1
);
create index project_rules_of_project on project_rules (project_id);
create table audiences (                       -- members of one ruled project for whom the same rules hold
  id bigint generated always as identity primary key,
  project_id uuid not null references projects on delete cascade,
  role text not null,
  user_id uuid references users,               -- null: everyone of the role whom no rule names
  good_until timestamptz                       -- the next moment at which a rule begins or ends; past it nothing is shown
);
create unique index audiences_one on audiences (project_id, role, coalesce(user_id, '00000000-0000-0000-0000-000000000000'));
create table project_members (
  project_id uuid not null,
  user_id uuid not null references users,
  role text not null,
  permissions text[] not null,                 -- of the role, kept here: a check is one row
  reads boolean generated always as ('study.read' = any (permissions)) stored,
  blinded boolean generated always as ('study.read' = any (permissions) and 'segmentation.read.all' <> all (permissions)) stored,
  via_group uuid references groups on delete cascade, -- null: a membership of one's own, which decides before any group's
  ruled boolean not null,                      -- the project's, held in step by the foreign key
  audience_id bigint not null default 0,       -- 0: sees what is assigned, in a project that is not ruled
  good_until timestamptz,                      -- the audience's
  created_at timestamptz not null default now(),
  valid_from timestamptz,
  expires_at timestamptz,
  primary key (user_id, project_id),
  foreign key (project_id, ruled) references projects (id, ruled) on update cascade on delete cascade
);
create index project_members_of_project on project_members (project_id);
create index project_members_of_audience on project_members (audience_id);
create table global_roles (
  user_id uuid not null references users,
  role text not null,
  primary key (user_id, role)
);
create table access_requests (
  id uuid primary key,
  project_id uuid not null,                    -- no foreign key: whether the project exists is not for the asker to learn
  user_id uuid not null references users,
  scope text not null check (scope in ('full', 'limited', 'read_only')),
  reason text not null,
  state text not null default 'pending' check (state in ('pending', 'approved', 'denied', 'withdrawn', 'expired')),
  until timestamptz,                           -- how long access is asked for
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,             -- unanswered by then, the request lapses
  decided_by uuid,
  decided_at timestamptz,
  note text not null default ''
);
create index access_requests_of_user on access_requests (user_id, id);
create index access_requests_of_project on access_requests (project_id, id);
create index access_requests_open on access_requests (expires_at) where state = 'pending';

-- archive ------------------------------------------------------------------------------------------------------------
create table blobs (
  address text collate "C" primary key,        -- BLAKE3 of the content, hex (docs/decisions: stored blob format)
  size bigint not null,
  format text not null default 'plain',
  created_at timestamptz not null default now()
);
create table studies (                         -- one row is a holding: the same UID may be kept more than once (decision 10)
  id bigint generated always as identity primary key,
  study_instance_uid text collate "C" not null,
  stored_into uuid,                            -- the project that it was first stored into
  sole_sender uuid,                            -- who stored all that is in it; null once others did
  repeated boolean not null default false,     -- there is another holding of this UID: lists then look which comes first
  patient_id text collate "C" not null default '',
  patient_name text not null default '',
  name_key text collate "C" not null default '', -- lower-cased name: prefix ranges stay leakproof under row-level security
  patient_birth_date date,
  patient_sex text not null default '',
  study_date date,
  study_time text not null default '',
  study_at timestamp not null,                 -- a study without a date lies on a fixed early day: keyset order is total
  study_description text not null default '',
  accession_number text collate "C" not null default '',
  modalities text[] not null default '{}',
  series_count integer not null default 0,
  instance_count integer not null default 0,
  bytes bigint not null default 0,
  attributes jsonb not null default '{}',      -- DICOM JSON of study-level attributes (PS3.18 F.2)
  search_nfd text generated always as (normalize(lower(patient_name || ' ' || patient_id || ' ' || study_description || ' ' || accession_number), NFD)) stored,
  rule_values jsonb not null default '{}',     -- attributes that rules may name: lists of normalised texts, and the names of unreadable ones
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (study_at, id),
  unique (study_instance_uid, stored_into, sole_sender)
);
create index studies_repeated on studies (study_instance_uid, id) where repeated;
create index studies_patient on studies (patient_id, id); -- with the id: pages are cut in the order of each
create index studies_name on studies (name_key, id);
create index studies_accession on studies (accession_number, id);
create index studies_modalities on studies using gin (modalities);
create index studies_search on studies using gin (search_nfd gin_trgm_ops);
create table series (
  id bigint generated always as identity primary key,
  study_id bigint not null references studies on delete cascade,
  series_instance_uid text collate "C" not null,
  modality text collate "C" not null default '',
  series_number integer,
  series_description text not null default '',
  body_part_examined text not null default '',
  instance_count integer not null default 0,
  bytes bigint not null default 0,
  attributes jsonb not null default '{}',
  owner_id uuid,                               -- whose work it shows (a segmentation); null: nobody's, as images
  rule_values jsonb not null default '{}',     -- attributes that rules may name: lists of normalised texts, and the names of unreadable ones
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (series_instance_uid, study_id)
);
create index series_of_study on series (study_id);
create table instances (
  id bigint generated always as identity primary key,
  study_id bigint not null references studies on delete cascade,
  series_id bigint not null references series on delete cascade,
  sop_instance_uid text collate "C" not null,
  sop_class_uid text collate "C" not null,
  transfer_syntax_uid text collate "C" not null,
  instance_number integer,
  image_rows integer,
  image_columns integer,
  number_of_frames integer not null default 0, -- 0: no pixel data
  blob_address text collate "C" not null references blobs,
  blob_size bigint not null,
  data_set_digest bytea not null,              -- BLAKE3 of transfer syntax and data set: the file meta information is not the instance
  attributes jsonb not null default '{}',      -- DICOM JSON of the instance-level attributes that QIDO-RS answers
  rule_values jsonb not null default '{}',     -- attributes that rules may name: lists of normalised texts, and the names of unreadable ones
  charged_user_id uuid,                        -- for whose quotas its bytes count while it is there; null: for nobody's
  charged_project_id uuid,
  created_at timestamptz not null default now(),
  unique (sop_instance_uid, study_id)
);
create index instances_of_series on instances (series_id, instance_number, id);
create index instances_of_study on instances (study_id);
create index instances_of_blob on instances (blob_address);
create table instance_headers (
  instance_id bigint primary key references instances on delete cascade,
  header bytea not null,                       -- zstd of the file's bytes before the pixel data element
  frames bytea not null                        -- little-endian uint64 pairs (offset, length) in the blob, one for each frame
);
create table project_items (                   -- what a project holds, and what each audience of a ruled project sees of it
  project_id uuid not null references projects on delete cascade,
  audience_id bigint not null default 0,       -- 0: assigned by somebody; else what was decided for that audience
  study_id bigint not null,
  study_at timestamp not null,                 -- the study's, held in step by the foreign key: pages are cut without sorting
  series_id bigint references series on delete cascade,       -- null: the whole study
  instance_id bigint references instances on delete cascade,  -- null: the whole series
  added_by uuid,
  added_at timestamptz not null default now(),
  foreign key (study_id, study_at) references studies (id, study_at) on update cascade on delete cascade
);
create unique index project_items_one
  on project_items (study_id, project_id, audience_id, coalesce(series_id, 0), coalesce(instance_id, 0));
create index project_items_newest on project_items (project_id, audience_id, study_at desc, study_id desc);
create index project_items_added on project_items (project_id, added_at desc, study_id desc) where audience_id = 0;
create index project_items_of_series on project_items (series_id) where series_id is not null;
create index project_items_of_instance on project_items (instance_id) where instance_id is not null;
create view project_studies as                 -- the assignments alone; writable
  select project_id, study_id, series_id, instance_id, added_by, added_at from project_items where audience_id = 0;
-- Where a sender's next instances of a study go, if not to what somebody else stored: the holding that they alone have filled,
-- in the project that they store into, as long as the project holds it. Locked, and so is the making of another by others
-- who store into the same project: what one of them has just made is found by the next.
create function own_holding(uid text, project uuid, sender uuid) returns bigint language plpgsql as $$
declare
  found_id bigint;
begin
  perform pg_advisory_xact_lock(hashtextextended(project || ' ' || uid, 0));
  select st.id into found_id from studies st
    where st.study_instance_uid = uid and st.stored_into = project and st.sole_sender = sender
      and exists (select from project_studies ps
                  where ps.study_id = st.id and ps.project_id = project and ps.series_id is null)
    for no key update;
  return found_id;
end $$;
-- Two that are made at once: the second waits here, and finds the first.
create function mark_repeated_studies() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock(hashtextextended(new.study_instance_uid, 0));
  if exists (select from studies where study_instance_uid = new.study_instance_uid and id <> new.id) then
    update studies set repeated = true where study_instance_uid = new.study_instance_uid and not repeated;
  end if;
  return null;
end $$;
create trigger mark_repeated after insert on studies for each row execute function mark_repeated_studies();

create table share_links (                     -- projects/share_links.py: each acts as its maker, narrowed to its items
  id uuid primary key,
  hash bytea not null unique,                  -- SHA-256 of the token
  project_id uuid not null references projects on delete cascade,
  created_by uuid not null references users,
  name text not null,
  actions text[] not null,                     -- view, download
  password_hash text,
  max_uses integer check (max_uses >= 1),      -- null: as often as one likes
  uses integer not null default 0,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  last_used_at timestamptz,
  revoked_at timestamptz,
  revoked_by uuid
);
create index share_links_of_project on share_links (project_id, id);
create table share_link_items (
  link_id uuid not null references share_links on delete cascade,
  project_id uuid not null,                    -- the link's
  study_id bigint not null references studies on delete cascade,
  series_id bigint references series on delete cascade -- null: the whole study, and then no series of it stands here
);
create unique index share_link_items_one on share_link_items (link_id, study_id, coalesce(series_id, 0));
create index share_link_items_of_study on share_link_items (study_id);
create index share_link_items_of_series on share_link_items (series_id) where series_id is not null;

-- uploads ------------------------------------------------------------------------------------------------------------
create table study_manifests (
  id uuid primary key,
  owner_id uuid not null references users,
  project_id uuid not null references projects,
  created_at timestamptz not null default now()
);
create index study_manifests_of_owner on study_manifests (owner_id, created_at desc, id desc);
create table study_manifest_files (
  manifest_id uuid not null references study_manifests on delete cascade,
  ordinal integer not null,
  path text collate "C" not null,
  size bigint not null,
  blake3 text collate "C",                     -- of the whole file, hex; one of the two
  sha256 text collate "C",
  state text not null default 'missing' check (state in ('missing', 'stored', 'already', 'used', 'refused')),
  study_instance_uid text collate "C",
  sop_instance_uid text collate "C",
  problem jsonb,
  instance_id bigint,                          -- what it became
  primary key (manifest_id, ordinal)
);
create unique index study_manifest_files_path on study_manifest_files (manifest_id, path);
create index study_manifest_files_sha256 on study_manifest_files (sha256) where state in ('stored', 'already');
create table uploads (
  id uuid primary key,
  owner_id uuid not null references users,
  project_id uuid not null references projects,
  filename text not null default '',
  relative_path text not null default '',
  manifest_id uuid references study_manifests on delete set null,
  length bigint,                               -- null while the client has not told it (tus creation-defer-length)
  claimed_bytes bigint not null default 0,     -- what it may add: its length, or what it unpacked to so far
  stored_bytes bigint not null default 0,      -- of these, what was added so far
  received bigint not null default 0,          -- durable offset: what HEAD reports
  concat text check (concat in ('partial', 'final')), -- tus concatenation; null for an upload of its own
  parts uuid[] not null default '{}',          -- of a final upload: its partial ones, in order
  geometry jsonb,                              -- a geometry form for pictures, as the client sent it
  sha256 text,                                 -- what the client said the whole file hashes to: one of the two
  blake3 text,
  direct text check (direct in ('server', 's3')), -- sent in numbered parts by signed addresses, to us or to the object store
  part_bytes bigint,                           -- of a direct one: each part but the last has this size
  part_secret bytea,                           -- signs the addresses of parts that come to us
  multipart_id text,                           -- the object store's own name of it
  told_at timestamptz not null default now(),  -- when progress was told last, and at which offset
  told_bytes bigint not null default 0,
  bytes_per_second double precision,           -- between the last two times that it was told
  files_done integer not null default 0,       -- of those found in it, what went to the archive so far
  state text not null default 'receiving' check (state in ('receiving', 'verifying', 'ingesting', 'stored', 'failed')),
  problem jsonb,
  job_id uuid,
  study_instance_uids text[] not null default '{}',
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  finished_at timestamptz
);
create index uploads_of_manifest on uploads (manifest_id, md5(coalesce(nullif(relative_path, ''), filename))) where manifest_id is not null;
create index uploads_open_of_owner on uploads (owner_id) where state in ('receiving', 'verifying', 'ingesting');
create index uploads_open_of_project on uploads (project_id) where state in ('receiving', 'verifying', 'ingesting');
create table upload_quotas (                   -- what an administrator allows; null: the default of the settings, 0: no limit
  subject text not null check (subject in ('user', 'project')),
  subject_id uuid not null,
  stored_bytes bigint,
  in_flight_bytes bigint,
  open_uploads integer,
  updated_by uuid not null references users,
  updated_at timestamptz not null default now(),
  primary key (subject, subject_id)
);
create table upload_usage_changes (            -- one line for what a statement stored or deleted: nobody waits for anybody to count
  subject text not null,
  subject_id uuid not null,
  bytes bigint not null
);
create index upload_usage_changes_of_subject on upload_usage_changes (subject, subject_id);
create function count_instances() returns trigger language plpgsql as $$
begin
  insert into upload_usage_changes (subject, subject_id, bytes)
  select 'user', charged_user_id, case when tg_op = 'INSERT' then sum(blob_size) else -sum(blob_size) end
  from changed where charged_user_id is not null group by 2
  union all
  select 'project', charged_project_id, case when tg_op = 'INSERT' then sum(blob_size) else -sum(blob_size) end
  from changed where charged_project_id is not null group by 2;
  return null;
end $$;
create trigger instances_come after insert on instances referencing new table as changed
  for each statement execute function count_instances();
create trigger instances_go after delete on instances referencing old table as changed
  for each statement execute function count_instances();
create table upload_usage (                    -- what is stored, without the changes above
  subject text not null check (subject in ('user', 'project')),
  subject_id uuid not null,
  stored_bytes bigint not null,
  primary key (subject, subject_id)
);
create index uploads_of_owner on uploads (owner_id, created_at desc, id desc);
create table upload_parts (                    -- parts of direct uploads to us that are durable; the object store lists its own
  upload_id uuid not null references uploads on delete cascade,
  number integer not null,
  size bigint not null,
  etag text not null,
  primary key (upload_id, number)
);
create table upload_files (
  upload_id uuid not null references uploads on delete cascade,
  ordinal integer not null,
  path text not null,
  state text not null check (state in ('stored', 'already', 'used', 'refused')),
  study_instance_uid text,
  series_instance_uid text,
  sop_instance_uid text,
  problem jsonb,
  made jsonb,                                  -- of a SEG or SR: the segmentation or annotations that it became
  primary key (upload_id, ordinal)
);

-- annotations --------------------------------------------------------------------------------------------------------
create table annotations (                     -- what stands now; annotation_versions holds all that ever stood
  id uuid primary key,
  project_id uuid not null references projects,
  study_id bigint,                             -- while the archive holds the study (see the triggers); null: the images live elsewhere
  study_instance_uid text collate "C" not null,
  series_instance_uid text collate "C",
  sop_instance_uid text collate "C",
  frame_number integer check (frame_number >= 1),
  tracking_uid text collate "C" not null,      -- in DICOM SR (112040, DCM): the same finding over exports and imports
  kind text collate "C" not null,
  tool text not null default '',                -- what it was drawn with, and its version
  model text collate "C" not null default '',   -- the AI model that it comes from; empty: a person's own
  geometry_type text collate "C" not null,
  geometry json not null,                      -- kept as text, which answers hand on; as it was drawn: {"type", "space", "points", "closed"?}
  mapped_geometry json,                        -- the same in the other space, where the frame's place is known
  label jsonb,                                 -- a text, or {"value", "scheme", "meaning"}
  label_code text collate "C" generated always as (coalesce(label ->> 'value', label #>> '{}')) stored,
  attributes jsonb not null default '{}',
  measurements json not null default '[]',     -- computed here, and reported by clients
  description text not null default '',
  state text collate "C" not null default 'draft' check (state in ('draft', 'submitted', 'approved', 'rejected')),
  assigned_to uuid references users,           -- who is to work on it next
  created_by uuid not null references users,
  updated_by uuid not null references users,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  version integer not null default 1,
  search_nfd text generated always as (normalize(lower(description || ' ' || coalesce(label ->> 'meaning', '') || ' ' || coalesce(label ->> 'value', label #>> '{}', '')), NFD)) stored
) with (toast_tuple_target = 4080);            -- an outline of 40 points stays in its row, unpacked: lists read it as it lies there
create index annotations_of_project on annotations (project_id, id);
create index annotations_of_study on annotations (study_instance_uid, project_id, id);
create index annotations_of_series on annotations (series_instance_uid, project_id, id);
create index annotations_of_author on annotations (created_by, id);
create index annotations_assigned on annotations (assigned_to, id) where assigned_to is not null;
create index annotations_search on annotations using gin (search_nfd gin_trgm_ops);
create table annotation_versions (             -- never updated, never deleted: 1, 2, 3 ... without a gap
  annotation_id uuid not null references annotations,
  version integer not null,
  action text not null check (action in ('create', 'import', 'edit', 'submit', 'approve', 'reject', 'reopen', 'assign', 'delete', 'restore')),
  changed text[] not null,                     -- names of the members that differ from the version before
  content json not null,
  why text not null default '',
  created_by uuid not null references users,
  created_at timestamptz not null default now(),
  primary key (annotation_id, version)
);
create function refuse_annotation_history_change() returns trigger language plpgsql as $$
begin
  raise exception 'the history of annotations is append-only' using errcode = 'insufficient_privilege';
end $$;
create trigger append_only before update or delete on annotation_versions
  for each row execute function refuse_annotation_history_change();
create table annotation_evidence (             -- a picture of what was seen when a version stood; it goes with that version for good
  annotation_id uuid not null,
  version integer not null,
  blob_address text collate "C" not null references blobs,
  media_type text not null check (media_type in ('image/png', 'image/jpeg')),
  bytes integer not null,
  created_by uuid not null references users,
  created_at timestamptz not null default now(),
  primary key (annotation_id, version),
  foreign key (annotation_id, version) references annotation_versions
);
create trigger append_only before update or delete on annotation_evidence
  for each row execute function refuse_annotation_history_change();
-- Annotations may be older than their study's arrival in their project, and outlive it. What other projects hold is nothing to
-- them. The lock makes one that is created at the same moment wait for the study, or the study for it.
create function bind_annotations_to_study() returns trigger language plpgsql as $$
declare
  uid text;
begin
  if tg_op = 'DELETE' then
    update annotations set study_id = null where study_id = old.id and study_instance_uid = old.study_instance_uid;
    return null;
  end if;
  select study_instance_uid into uid from studies where id = new.study_id;
  perform pg_advisory_xact_lock(hashtextextended(uid, 0));
  update annotations a set study_id = new.study_id
    where a.study_instance_uid = uid and a.project_id = new.project_id and a.study_id is distinct from new.study_id
      and not exists (select from project_studies ps where ps.study_id = a.study_id and ps.project_id = a.project_id);
  return null;
end $$;
create trigger bind_annotations after insert on project_items for each row when (new.audience_id = 0)
  execute function bind_annotations_to_study();
create trigger unbind_annotations after delete on studies for each row execute function bind_annotations_to_study();
-- For the pseudonyms of the audit alone: the patients of studies, seen or not, in one round trip. A record of a project tells of
-- what the project holds, or was the first to hold: its auditors learn nothing of what others keep under the same UID.
create function patients_of(uids text[], projects uuid[])
  returns table (study_instance_uid text, project_id uuid, patient_id text) language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
  actor text := current_setting('app.actor', true);
begin
  perform set_config('app.actor', '00000000-0000-0000-0000-000000000000', true);
  return query
    select asked.uid, asked.project, one.patient_id from unnest(uids, projects) asked (uid, project)
    cross join lateral (
      select st.patient_id from studies st
      where st.study_instance_uid = asked.uid and st.patient_id <> ''
        and (asked.project is null or st.stored_into = asked.project
             or exists (select from project_items pi where pi.study_id = st.id and pi.project_id = asked.project))
      order by st.id limit 1) one;
  perform set_config('app.actor', actor, true);
end $$;
create table annotation_settings (             -- of a project; no row: the defaults
  project_id uuid primary key references projects on delete cascade,
  review_own boolean not null default false,   -- may a reviewer approve what they drew themselves?
  updated_at timestamptz not null default now()
);
create table labels (                          -- a project's label set: with one, annotations take their label from it
  id uuid primary key,
  project_id uuid not null references projects on delete cascade,
  value text collate "C" not null,
  scheme text collate "C" not null,
  meaning text not null,
  name_en text not null,
  name_ko text not null,
  color text not null,                         -- #rrggbb
  attributes jsonb not null default '[]',      -- [{"name", "type", "choices"?, "required", "label_en", "label_ko"}]
  required text[] not null default '{}',       -- members of an annotation that must be filled in: description, geometry
  position integer not null default 0,
  retired_at timestamptz,                      -- kept for what carries it, not offered any more
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  version integer not null default 1,
  unique (project_id, scheme, value)
);
create table annotation_drafts (               -- autosaved, unfinished work: one's own alone
  user_id uuid not null references users,
  study_instance_uid text collate "C" not null,
  key text collate "C" not null,
  content bytea not null,
  saved_at timestamptz not null default now(),
  primary key (user_id, study_instance_uid, key)
);

create table interactive_sessions (            -- interactive/sessions.py: one's own alone
  id uuid primary key,
  user_id uuid not null references users,
  project_id uuid not null references projects on delete cascade,
  series_instance_uid text collate "C" not null,
  hints jsonb not null default '[]',
  created_at timestamptz not null default now(),
  queued_at timestamptz not null default now(), -- since when it holds or waits for a place
  used_at timestamptz not null default now()
);
create index interactive_sessions_of_user on interactive_sessions (user_id);

-- segmentations ------------------------------------------------------------------------------------------------------
create table segmentations (
  id uuid primary key,
  project_id uuid not null references projects,
  study_id bigint,                             -- the holding whose images it was drawn on: who does not see them does not see it
  study_instance_uid text collate "C" not null,
  series_instance_uid text collate "C" not null,
  frame_of_reference_uid text collate "C" not null default '',
  label text not null default '',
  state text not null default 'draft' check (state in ('proposal', 'draft', 'submitted', 'approved', 'rejected')),
  prediction_id uuid,
  created_by uuid not null references users,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,                      -- the present version says that it is gone; any earlier one can be restored
  version integer not null default 1
);
create index segmentations_newest on segmentations (project_id, created_at desc, id desc);
create index segmentations_of_series on segmentations (series_instance_uid, project_id);
create index segmentations_of_study on segmentations (study_instance_uid, project_id);
create table segmentation_versions (
  segmentation_id uuid not null references segmentations,
  version integer not null,
  label text not null,
  state text not null,
  shape_kji integer[] not null,
  affine_lps double precision[] not null,      -- 16 numbers, row by row: voxel index (i, j, k, 1) to LPS mm
  sop_instance_uid text collate "C",           -- the DICOM SEG of this version in the archive; null: none was written
  deleted boolean not null default false,
  why text not null default '',
  created_by uuid not null references users,
  created_at timestamptz not null default now(),
  primary key (segmentation_id, version)
);
-- A version holds only what changed: a segment or brick is as the row with the greatest since_version up to it says.
create table segments (
  segmentation_id uuid not null,
  segment_number integer not null check (segment_number between 1 and 65535),
  since_version integer not null,
  removed boolean not null default false,      -- not part of the segmentation since this version
  label text not null,
  code jsonb not null,                         -- {"value", "scheme", "meaning"}
  category jsonb not null,                     -- the same; CID 7150 (anatomical structure, lesion, ...)
  algorithm jsonb,                             -- {"name", "version"} of the model; null: drawn by a person
  color text not null,                         -- #rrggbb
  statistics jsonb not null,
  primary key (segmentation_id, segment_number, since_version),
  foreign key (segmentation_id, since_version) references segmentation_versions
);
create table bricks (
  address bytea primary key,                   -- BLAKE3 of the packed bits before compression
  data bytea not null                          -- zstd of packbits, 16 slices of one segment
);
create table segment_bricks (
  segmentation_id uuid not null,
  segment_number integer not null,
  brick_index integer not null,                -- slices 16 * brick_index .. 16 * brick_index + 15
  since_version integer not null,
  address bytea references bricks,             -- null: without a voxel since this version
  counts bigint[],                             -- voxels; sums of their k, j, i; lowest and highest k, j, i; k within the brick
  primary key (segmentation_id, segment_number, brick_index, since_version),
  foreign key (segmentation_id, since_version) references segmentation_versions
);
create index segment_bricks_of_brick on segment_bricks (address);

-- inference ----------------------------------------------------------------------------------------------------------
create table predictions (
  id uuid primary key,
  model text not null,
  model_version text not null,
  project_id uuid not null references projects,
  study_id bigint,                             -- the holding of its series
  series_instance_uid text collate "C" not null,
  parameters jsonb not null default '{}',
  job_id uuid not null references jobs,        -- holds the state until there is an outcome, and the times
  outcome text check (outcome in ('succeeded', 'refused')),
  segmentation_id uuid references segmentations,
  problem jsonb,                               -- of a refusal; that of a failure is the job's
  flags text[] not null default '{}',
  quality jsonb not null default '{}',
  input_digest bytea,                          -- BLAKE3 of what the model was given
  asked_by uuid not null references users,
  created_at timestamptz not null default now(),
  check ((outcome = 'succeeded') = (segmentation_id is not null))
);
create index predictions_of_series on predictions (series_instance_uid, project_id, id);
create index predictions_of_project on predictions (project_id, id);

-- workitems (PS3.4 CC) -----------------------------------------------------------------------------------------------
create table workitems (
  id uuid primary key,                         -- sorts by the time of its making
  workitem_uid text collate "C" not null,      -- one for whoever sees it; others may use the same without learning of it
  project_id uuid not null references projects on delete cascade,
  study_id bigint,                             -- the holding of its input: who does not see it does not see the workitem
  study_instance_uid text collate "C",
  series_instance_uid text collate "C",
  attributes jsonb not null,                   -- DICOM JSON, without what has a column here
  state text not null default 'SCHEDULED' check (state in ('SCHEDULED', 'IN PROGRESS', 'COMPLETED', 'CANCELED')),
  transaction_uid text,                        -- the lock of who claimed it
  prediction_id uuid unique references predictions on delete cascade, -- performed here: its state is the prediction's
  created_by uuid not null references users,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  check (series_instance_uid is null or study_instance_uid is not null)
);
create index workitems_by_uid on workitems (workitem_uid, id);
create index workitems_of_project on workitems (project_id, id);
create table workitem_subscriptions (
  user_id uuid not null references users on delete cascade,
  ae_title text collate "C" not null,          -- the subscriber's own name; of this user alone
  workitem_uid text collate "C" not null,      -- a workitem, or the well-known UID of all or of a filter
  subscribed boolean not null default true,    -- false: taken out of what the global subscription covers
  filter jsonb,                                -- keys of a filtered global subscription
  suspended_at timestamptz,                    -- of a global one: what is created later is not part of it
  created_at timestamptz not null default now(),
  primary key (user_id, ae_title, workitem_uid)
);

-- remotes ------------------------------------------------------------------------------------------------------------
create table remotes (                         -- archives elsewhere: a PACS, an Orthanc, another Annotomy
  id uuid primary key,
  name text not null unique,
  kind text not null check (kind in ('dicomweb', 'dimse')),
  address jsonb not null,                      -- where it is and how it is spoken to, without secrets
  secrets bytea,                               -- sealed (identity/seal.py); null: none are needed
  created_by uuid not null references users,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  version integer not null default 1
);
create table remote_projects (                 -- the projects that a remote is open to
  remote_id uuid not null references remotes on delete cascade,
  project_id uuid not null references projects on delete cascade,
  primary key (remote_id, project_id)
);
create index remote_projects_of_project on remote_projects (project_id);
create table remote_retrievals (
  id uuid primary key,
  remote_id uuid not null references remotes on delete cascade,
  project_id uuid not null references projects on delete cascade,
  study_instance_uid text collate "C" not null,
  series_instance_uid text collate "C",        -- null: the whole study
  job_id uuid not null references jobs,
  move_message_id integer,                     -- of the C-MOVE in hand: what comes of it goes to this project
  expected integer,                            -- instances that the remote named and the rules show; null: not asked yet
  present integer not null default 0,          -- of these, in the project when it was counted last
  refused jsonb not null default '{}',         -- by problem slug, how many were brought and not kept
  created_by uuid not null references users,
  created_at timestamptz not null default now()
);
create index remote_retrievals_of_project on remote_retrievals (project_id, id);
create index remote_retrievals_moving on remote_retrievals (move_message_id) where move_message_id is not null;
create table remote_pushes (
  id uuid primary key,
  remote_id uuid not null references remotes on delete cascade,
  project_id uuid not null references projects on delete cascade,
  study_instance_uid text collate "C" not null,
  state text not null default 'queued' check (state in ('queued', 'sent', 'committed', 'dead', 'cancelled')),
  attempts integer not null default 0,
  next_attempt_at timestamptz not null default now(),
  job_id uuid,                                 -- of the attempt that is queued or running
  problem jsonb,                               -- why the last attempt, or the push, failed
  transaction_uid text collate "C" unique,     -- of the storage commitment that was asked for
  created_by uuid not null references users,
  created_at timestamptz not null default now(),
  finished_at timestamptz
);
create index remote_pushes_of_project on remote_pushes (project_id, id);
create index remote_pushes_due on remote_pushes (next_attempt_at) where state = 'queued';
create table remote_push_instances (
  push_id uuid not null references remote_pushes on delete cascade,
  sop_instance_uid text collate "C" not null,
  sop_class_uid text collate "C" not null,
  state text not null default 'pending' check (state in ('pending', 'sent', 'refused', 'committed')),
  reason text not null default '',             -- of a refusal: a code and a word of ours, never text of the remote
  primary key (push_id, sop_instance_uid)
);
create table remote_syncs (
  remote_id uuid primary key references remotes on delete cascade,
  state text not null default 'on' check (state in ('on', 'paused')),
  every_minutes integer not null,
  days integer not null,                       -- back from today: studies with older dates are not looked at, nor judged
  missing_share real not null,                 -- of the known studies: if more are missing, the answer is not believed
  grace_days integer not null,                 -- how long a study stays missing before it counts as gone
  next_run_at timestamptz not null default now(),
  job_id uuid,                                 -- of the run that is queued or running
  outcome text not null default 'none' check (outcome in ('none', 'complete', 'guarded', 'failed')),
  why text not null default '',
  last_run_at timestamptz,
  last_complete_at timestamptz
);
create table remote_studies (                  -- what a remote was last seen to hold; outlives what it shows
  remote_id uuid not null references remotes on delete cascade,
  study_instance_uid text collate "C" not null,
  study_date date,
  attributes jsonb not null,                   -- DICOM JSON, as answered
  first_seen_at timestamptz not null default now(),
  last_seen_at timestamptz not null default now(),
  missing_since timestamptz,                   -- tombstone: not in an answer that was believed
  gone_at timestamptz,                         -- missing for longer than the grace
  primary key (remote_id, study_instance_uid)
);
create index remote_studies_by_date on remote_studies (remote_id, study_date desc nulls last, study_instance_uid);

-- dimse --------------------------------------------------------------------------------------------------------------
create table recent_downloads (                -- of the last day: what makes a download a bulk download
  user_id uuid not null references users on delete cascade,
  study_instance_uid text collate "C" not null,
  at timestamptz not null default now(),
  primary key (user_id, study_instance_uid)
);
create table dimse_peers (
  id uuid primary key,
  ae_title text collate "C" not null unique,
  network cidr,                                -- where the peer calls from; null: any address
  user_id uuid not null references users,      -- the principal that it acts as
  project_id uuid references projects on delete cascade, -- what it stores goes here and it sees only this; null: the principal's
  may_store boolean not null,
  may_query boolean not null,
  may_retrieve boolean not null,
  purpose text not null default '',            -- why it retrieves: the reason of its bulk retrievals
  host text,                                   -- where it listens: C-MOVE destination, storage commitment results
  port integer check (port between 1 and 65535),
  created_at timestamptz not null default now(),
  check ((host is null) = (port is null))
);

-- the second wall: row-level security ---------------------------------------------------------------------------------
-- `visibility` is the one statement of who sees what; queries join it (first wall) and policies read it (second wall).
-- One row is a study, a series or an instance that the actor sees, through one project. app.actor and app.project are set by
-- each transaction. The nil UUID is the system itself (jobs and the store operation, which decided rights before).
-- app.project narrows a credential that is bound to projects, app.share one that came by a share link: it sees what its maker
-- sees, while the maker may share, and of that no more than the link names, while the link stands.
-- `actor_audiences` are the projects that the actor reads, and as whom: lists walk the items of each, newest first.
-- In a ruled project a member without an audience sees nothing, as does one whose audience has to be decided anew.
create view actor_audiences as
  select m.project_id, m.audience_id from project_members m
  where m.user_id = (select nullif(current_setting('app.actor', true), '')::uuid)
    and m.reads and m.ruled = (m.audience_id <> 0)
    and (m.valid_from is null or m.valid_from <= now()) and (m.expires_at is null or m.expires_at > now())
    and (m.good_until is null or m.good_until > now())
    and ((select nullif(current_setting('app.project', true), '')) is null
         or m.project_id = any ((select nullif(current_setting('app.project', true), '')::uuid[])::uuid[]))
    and ((select nullif(current_setting('app.share', true), '')) is null or 'study.share' = any (m.permissions));
create view visibility as
  select pi.study_id, coalesce(pi.series_id, sh.series_id) as series_id, pi.instance_id, pi.project_id
  from project_items pi join actor_audiences a on a.project_id = pi.project_id and a.audience_id = pi.audience_id
  left join share_link_items sh
    on sh.link_id = (select l.id from share_links l where l.id = nullif(current_setting('app.share', true), '')::uuid
                     and l.revoked_at is null and l.expires_at > now())
    and sh.study_id = pi.study_id and sh.project_id = pi.project_id
    and (sh.series_id is null or pi.series_id is null or sh.series_id = pi.series_id)
  where (select nullif(current_setting('app.share', true), '')) is null or sh.link_id is not null;
alter table studies enable row level security;
alter table studies force row level security;
alter table series enable row level security;
alter table series force row level security;
alter table instances enable row level security;
alter table instances force row level security;
alter table instance_headers enable row level security;
alter table instance_headers force row level security;
-- The second, implied comparison keeps the planner from gathering all that the actor sees into a hash for a page of 100.
create policy visible on studies using (
  (select current_setting('app.actor', true)) = '00000000-0000-0000-0000-000000000000'
  or exists (select from visibility v where v.study_id = studies.id and v.study_id <= studies.id));
create policy visible on series using (
  (select current_setting('app.actor', true)) = '00000000-0000-0000-0000-000000000000'
  or exists (select from visibility v where v.study_id = series.study_id
             and (v.series_id is null or v.series_id = series.id)));
create policy visible on instances using (
  (select current_setting('app.actor', true)) = '00000000-0000-0000-0000-000000000000'
  or exists (select from visibility v where v.study_id = instances.study_id
             and (v.series_id is null or v.series_id = instances.series_id)
             and (v.instance_id is null or v.instance_id = instances.id)));
alter table workitems enable row level security;
alter table workitems force row level security;
create policy visible on workitems using (
  (select current_setting('app.actor', true)) = '00000000-0000-0000-0000-000000000000'
  or exists (select from project_members m where m.project_id = workitems.project_id and m.reads
             and (select nullif(current_setting('app.share', true), '')) is null
             and m.user_id = (select nullif(current_setting('app.actor', true), '')::uuid)
             and ((select nullif(current_setting('app.project', true), '')) is null
                  or m.project_id = any ((select nullif(current_setting('app.project', true), '')::uuid[])::uuid[])))
     and (workitems.study_instance_uid is null
          or exists (select from visibility v
                     where v.study_id = workitems.study_id and v.project_id = workitems.project_id
                       and (v.series_id is null or workitems.series_instance_uid is null
                            or exists (select from series se where se.id = v.series_id
                                       and se.series_instance_uid = workitems.series_instance_uid)))));
-- The file's own header holds all that the instance says; the instance's policy decides within this one.
create policy visible on instance_headers using (
  (select current_setting('app.actor', true)) = '00000000-0000-0000-0000-000000000000'
  or exists (select from instances i where i.id = instance_headers.instance_id and i.id <= instance_headers.instance_id));
