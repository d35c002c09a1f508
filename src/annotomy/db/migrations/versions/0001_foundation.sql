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
create index jobs_of_asker on jobs (asker_id, created_at desc, id desc);
create index jobs_open on jobs (kind) where state in ('queued', 'running');

-- events -------------------------------------------------------------------------------------------------------------
create table events (
  seq bigint generated always as identity primary key,
  type text not null,
  at timestamptz not null default now(),
  actor_id uuid not null,
  actor_name text not null,
  project_id uuid,
  object_kind text not null,
  object_id text not null,
  data jsonb not null default '{}'
);
create index events_of_project on events (project_id, seq);
create index events_of_object on events (object_kind, object_id, seq);

-- http ---------------------------------------------------------------------------------------------------------------
create table idempotency_keys (
  principal_id uuid not null,
  key text not null,
  route text not null,
  fingerprint bytea not null,
  status integer not null,
  body bytea not null,
  created_at timestamptz not null default now(),
  primary key (principal_id, route, key)
);

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
create table oidc_flows (                      -- from the redirect to the provider until it comes back
  state_hash bytea primary key,
  browser_hash bytea not null,                 -- of the cookie: only the browser that began may end it
  nonce text not null,
  code_verifier text not null,
  next_path text not null,
  link_user_id uuid references users,
  expires_at timestamptz not null
);
create table api_keys (
  id uuid primary key,
  handle text collate "C" not null unique,     -- the middle part of the key: names it without opening anything
  user_id uuid not null references users,
  name text not null,
  hash bytea not null,
  scopes text[],                               -- null: all that its user may do
  project_id uuid,
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
  created_by uuid not null,
  created_at timestamptz not null default now(),
  version integer not null default 1
);
create table project_members (
  project_id uuid not null references projects on delete cascade,
  user_id uuid not null references users,
  role text not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  primary key (user_id, project_id)
);
create index project_members_of_project on project_members (project_id);

-- archive ------------------------------------------------------------------------------------------------------------
create table blobs (
  address text collate "C" primary key,        -- BLAKE3 of the content, hex (docs/decisions: stored blob format)
  size bigint not null,
  format text not null default 'plain',
  created_at timestamptz not null default now()
);
create table studies (
  id bigint generated always as identity primary key,
  study_instance_uid text collate "C" not null unique,
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
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index studies_newest on studies (study_at desc, id desc);
create index studies_patient on studies (patient_id);
create index studies_name on studies (name_key);
create index studies_accession on studies (accession_number);
create index studies_modalities on studies using gin (modalities);
create index studies_search on studies using gin (search_nfd gin_trgm_ops);
create table series (
  id bigint generated always as identity primary key,
  study_id bigint not null references studies on delete cascade,
  series_instance_uid text collate "C" not null unique,
  modality text collate "C" not null default '',
  series_number integer,
  series_description text not null default '',
  body_part_examined text not null default '',
  instance_count integer not null default 0,
  bytes bigint not null default 0,
  attributes jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index series_of_study on series (study_id);
create table instances (
  id bigint generated always as identity primary key,
  study_id bigint not null references studies on delete cascade,
  series_id bigint not null references series on delete cascade,
  sop_instance_uid text collate "C" not null unique,
  sop_class_uid text collate "C" not null,
  transfer_syntax_uid text collate "C" not null,
  instance_number integer,
  image_rows integer,
  image_columns integer,
  number_of_frames integer not null default 0, -- 0: no pixel data
  blob_address text collate "C" not null references blobs,
  blob_size bigint not null,
  attributes jsonb not null default '{}',      -- DICOM JSON of the instance-level attributes that QIDO-RS answers
  created_at timestamptz not null default now()
);
create index instances_of_series on instances (series_id, instance_number, id);
create index instances_of_study on instances (study_id);
create index instances_of_blob on instances (blob_address);
create table instance_headers (
  instance_id bigint primary key references instances on delete cascade,
  header bytea not null,                       -- zstd of the file's bytes before the pixel data element
  frames bytea not null                        -- little-endian uint64 pairs (offset, length) in the blob, one for each frame
);
create table project_studies (
  project_id uuid not null references projects on delete cascade,
  study_id bigint not null references studies on delete cascade,
  added_by uuid not null,
  added_at timestamptz not null default now(),
  primary key (study_id, project_id)
);
create index project_studies_of_project on project_studies (project_id, study_id);

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
  state text not null default 'missing' check (state in ('missing', 'stored', 'already', 'refused')),
  study_instance_uid text collate "C",
  sop_instance_uid text collate "C",
  problem jsonb,
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
  received bigint not null default 0,          -- durable offset: what HEAD reports
  concat text check (concat in ('partial', 'final')), -- tus concatenation; null for an upload of its own
  parts uuid[] not null default '{}',          -- of a final upload: its partial ones, in order
  sha256 text,                                 -- what the client said the whole file hashes to
  state text not null default 'receiving' check (state in ('receiving', 'verifying', 'ingesting', 'stored', 'failed')),
  problem jsonb,
  job_id uuid,
  study_instance_uids text[] not null default '{}',
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  finished_at timestamptz
);
create index uploads_of_owner on uploads (owner_id, created_at desc, id desc);
create table upload_files (
  upload_id uuid not null references uploads on delete cascade,
  ordinal integer not null,
  path text not null,
  state text not null check (state in ('stored', 'already', 'refused')),
  study_instance_uid text,
  series_instance_uid text,
  sop_instance_uid text,
  problem jsonb,
  primary key (upload_id, ordinal)
);

-- annotations --------------------------------------------------------------------------------------------------------
create table annotations (
  id uuid primary key,
  project_id uuid not null references projects,
  study_instance_uid text collate "C" not null,
  series_instance_uid text collate "C",
  sop_instance_uid text collate "C",
  frame_number integer check (frame_number >= 1),
  kind text not null,
  geometry jsonb not null,
  label jsonb,
  measurements jsonb not null default '[]',
  description text not null default '',
  state text not null default 'draft' check (state in ('draft', 'submitted', 'approved', 'rejected')),
  created_by uuid not null references users,
  updated_by uuid not null references users,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  version integer not null default 1
);
create index annotations_of_study on annotations (project_id, study_instance_uid, id);
create index annotations_of_series on annotations (project_id, series_instance_uid, id);
create table annotation_versions (
  annotation_id uuid not null references annotations,
  version integer not null,
  content jsonb not null,
  why text not null default '',
  created_by uuid not null,
  created_at timestamptz not null default now(),
  primary key (annotation_id, version)
);

-- segmentations ------------------------------------------------------------------------------------------------------
create table segmentations (
  id uuid primary key,
  project_id uuid not null references projects,
  study_instance_uid text collate "C" not null,
  series_instance_uid text collate "C" not null,
  frame_of_reference_uid text collate "C" not null default '',
  label text not null default '',
  state text not null default 'draft' check (state in ('proposal', 'draft', 'submitted', 'approved', 'rejected')),
  prediction_id uuid,
  created_by uuid not null references users,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  version integer not null default 1
);
create index segmentations_of_series on segmentations (series_instance_uid, project_id);
create index segmentations_of_study on segmentations (study_instance_uid, project_id);
create table segmentation_versions (
  segmentation_id uuid not null references segmentations,
  version integer not null,
  shape_kji integer[] not null,
  affine_lps double precision[] not null,      -- 16 numbers, row by row: voxel index (i, j, k, 1) to LPS mm
  sop_instance_uid text collate "C",           -- the DICOM SEG of this version in the archive
  why text not null default '',
  created_by uuid not null references users,
  created_at timestamptz not null default now(),
  primary key (segmentation_id, version)
);
create table segments (
  segmentation_id uuid not null,
  version integer not null,
  segment_number integer not null check (segment_number >= 1),
  label text not null,
  code jsonb not null,                         -- {"value", "scheme", "meaning"}
  color text not null,                         -- #rrggbb
  statistics jsonb not null,
  primary key (segmentation_id, version, segment_number),
  foreign key (segmentation_id, version) references segmentation_versions
);
create table bricks (
  address bytea primary key,                   -- BLAKE3 of the packed bits before compression
  data bytea not null                          -- zstd of packbits, 16 slices of one segment
);
create table segment_bricks (
  segmentation_id uuid not null,
  version integer not null,
  segment_number integer not null,
  brick_index integer not null,                -- slices 16 * brick_index .. 16 * brick_index + 15; bricks without a voxel have no row
  address bytea not null references bricks,
  primary key (segmentation_id, version, segment_number, brick_index),
  foreign key (segmentation_id, version, segment_number) references segments
);

-- inference ----------------------------------------------------------------------------------------------------------
create table predictions (
  id uuid primary key,
  model text not null,
  model_version text not null,
  project_id uuid not null references projects,
  series_instance_uid text collate "C" not null,
  parameters jsonb not null default '{}',
  input_digest bytea,
  state text not null default 'queued' check (state in ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'refused')),
  job_id uuid,
  segmentation_id uuid references segmentations,
  problem jsonb,
  quality jsonb not null default '{}',
  asked_by uuid not null references users,
  created_at timestamptz not null default now(),
  finished_at timestamptz
);
create index predictions_of_series on predictions (series_instance_uid, project_id);

-- the second wall: who is not a member of a project that holds the study sees no row of it ----------------------------
-- `visibility` is the one statement of the rule; queries join it (first wall) and policies read it (second wall).
-- app.actor and app.project are set by each transaction. The nil UUID is the system itself (jobs and the store
-- operation, which decided rights before). app.project narrows a credential that is bound to one project.
create view visibility as
  select ps.study_id, ps.project_id
  from project_studies ps
  join project_members m using (project_id)
  where m.user_id = (select nullif(current_setting('app.actor', true), '')::uuid)
    and (m.expires_at is null or m.expires_at > now())
    and ((select nullif(current_setting('app.project', true), '')) is null
         or ps.project_id = (select nullif(current_setting('app.project', true), '')::uuid));
alter table studies enable row level security;
alter table studies force row level security;
alter table series enable row level security;
alter table series force row level security;
alter table instances enable row level security;
alter table instances force row level security;
create policy visible on studies using (
  (select current_setting('app.actor', true)) = '00000000-0000-0000-0000-000000000000'
  or exists (select from visibility v where v.study_id = studies.id));
create policy visible on series using (
  (select current_setting('app.actor', true)) = '00000000-0000-0000-0000-000000000000'
  or exists (select from visibility v where v.study_id = series.study_id));
create policy visible on instances using (
  (select current_setting('app.actor', true)) = '00000000-0000-0000-0000-000000000000'
  or exists (select from visibility v where v.study_id = instances.study_id));
