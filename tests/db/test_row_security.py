"""Every table that holds or names patients' data stands behind row-level security, or says here why it need not."""

from annotomy.actor import SYSTEM
from annotomy.services import Services

BY_PROJECT = "read through projects/access.py: rows are joined with the wall by their project or their owner"
WITHOUT: dict[str, str] = {
    "access_requests": "no patient data; the asker's own and those of projects that one manages",
    "annotation_drafts": "one's own alone, by the key of the table",
    "interactive_sessions": "one's own alone; their masks are computed of what the asker sees",
    "annotation_settings": "no patient data",
    "annotations": f"{BY_PROJECT} and the study (annotations/rights.py)",
    "audiences": "no patient data; read by the view `visibility` itself",
    "audit": "append-only record with pseudonyms; read by who holds audit.read (ops/audit_search.py)",
    "events": "no patient data; the feed joins the wall (collaboration/feed.py)",
    "jobs": "no patient data; the asker's own",
    "labels": "no patient data",
    "predictions": f"{BY_PROJECT} and the series (inference/predict.py)",
    "project_groups": "no patient data",
    "project_items": "keys alone; the view `visibility` reads it, so its policy would ask itself",
    "project_members": "no patient data; read by the view `visibility` itself",
    "project_roles": "no patient data",
    "project_rules": "what a rule compares may name a patient; read by who manages the project (projects/rules.py)",
    "segmentation_versions": "reached through its segmentation alone",
    "segmentations": f"{BY_PROJECT} and the series (segmentations/query.py)",
    "share_link_items": "keys alone; read by the view `visibility` itself",
    "share_links": "no patient data; the maker's own and those of projects that one manages",
    "study_manifest_files": "reached through its manifest alone, which is its owner's",
    "study_manifests": "the owner's own",
    "dimse_peers": "no patient data",
    "remote_projects": "no patient data",
    "remote_pushes": "by who pushed, or may push in its project and sees its study there (remotes/push.py)",
    "remote_push_instances": "reached through its push alone",
    "remote_retrievals": "as pushes (remotes/bring.py)",
    "remote_studies": "read through a project's rules, as what a remote answers is (remotes/ask.py)",
    "recent_downloads": "one's own alone, by the key of the table",
    "upload_files": "reached through its upload alone, which is its owner's",
    "uploads": "the owner's own",
}
"""Each with the reason. A new table that names studies or projects fails until it has a policy, or a line here."""

NAMING = """
select distinct c.relname as name, c.relrowsecurity and c.relforcerowsecurity as secured from pg_class c
join pg_attribute a on a.attrelid = c.oid and not a.attisdropped
where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace
and (a.attname ~ '(study|series|sop)_instance_uids?$' or a.attname in ('project_id', 'study_id', 'series_id', 'instance_id'))"""


async def test_tables_that_name_patients_data_are_secured_or_say_why_not(services: Services) -> None:
    async with services.db.read(SYSTEM) as tx:
        tables = {row["name"]: row["secured"] for row in await tx.fetch(NAMING)}
        secured = {name for name, is_secured in tables.items() if is_secured}
        without_policy = await tx.fetch(
            "select relname from pg_class c where relrowsecurity and not exists (select from pg_policy p where p.polrelid = c.oid)"
        )
    assert secured >= {"studies", "series", "instances", "instance_headers"}
    assert tables.keys() - secured == WITHOUT.keys(), "a new table, or a line that nothing needs any more"
    assert without_policy == []
