/** Who saved what and when; any version can be looked at, compared with the present one, and restored. */
import { Button, Group, Modal, Table, Text } from '@mantine/core';
import { useMutation, useQuery } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import type { Segmentation } from '../../api/client';
import { fetchMasks, listMaskVersions, type MaskVersion, restoreMasks } from '../../api/masks';
import { FailureNotice } from '../../components/failure-notice';
import { compareVersions } from './compare-masks';
import { previewOf } from './mask-layers';
import { rgbOf } from './mask-picture';
import type { MaskSession } from './mask-session';
import { MaskVolume } from './mask-volume';
import type { Reading } from './reading';

interface Props {
  reading: Reading;
  session: MaskSession;
  segmentation: Segmentation;
  editable: boolean;
  onClose: () => void;
}

export function VersionsDialog({ reading, session, segmentation, editable, onClose }: Props) {
  const { t, i18n } = useTranslation();
  const versions = useQuery({
    queryKey: ['mask-versions', segmentation.id, segmentation.version],
    queryFn: ({ signal }) => listMaskVersions(segmentation.id, signal),
  });
  const preview = previewOf(reading);
  const looking = useMutation({
    mutationFn: async (version: MaskVersion) => {
      const masks = await fetchMasks(segmentation.id, version.version);
      preview.set({
        segmentationId: segmentation.id,
        title: t('segmentation.version', { version: version.version }),
        volume: new MaskVolume(masks),
        segments: version.segments.map((one) => ({
          segmentNumber: one.segment_number,
          rgb: rgbOf(one.color),
          voxels: one.statistics.voxels,
          visible: true,
        })),
        legend: version.segments.map((one) => ({ label: one.label, color: one.color })),
      });
    },
    onSuccess: onClose,
  });
  const comparing = useMutation({
    mutationFn: async (version: number) => preview.set(await compareVersions(session, version, t)),
    onSuccess: onClose,
  });
  const restoring = useMutation({
    mutationFn: (version: number) => restoreMasks(segmentation.id, segmentation.version, version),
    onSuccess: async (made) => {
      reading.putSegmentation(made);
      await reading.reopenMasks(made);
      preview.set(null);
      onClose();
    },
  });
  const error = versions.error ?? looking.error ?? comparing.error ?? restoring.error;
  return (
    <Modal
      opened
      onClose={onClose}
      size="lg"
      title={t('segmentation.history')}
      closeButtonProps={{ 'aria-label': t('app.close') }}
    >
      {error !== null && <FailureNotice title={t('segmentation.masksFailed')} error={error} />}
      <Table verticalSpacing={6} fz="sm" data-testid="versions">
        <Table.Tbody>
          {versions.data?.map((one) => (
            <Table.Tr key={one.version} data-testid="version">
              <Table.Td>{one.version}</Table.Td>
              <Table.Td>
                <Text size="sm">{one.created_by_name}</Text>
                <Text size="xs" c="dimmed">
                  {new Date(one.created_at).toLocaleString(i18n.language)}
                  {one.why && ` · ${one.why}`}
                </Text>
              </Table.Td>
              <Table.Td>{t(`segmentation.state.${one.state}`)}</Table.Td>
              <Table.Td>
                <Group gap={4} justify="flex-end" wrap="nowrap">
                  <Button
                    size="compact-xs"
                    variant="default"
                    data-testid="preview-version"
                    onClick={() => looking.mutate(one)}
                  >
                    {t('segmentation.preview')}
                  </Button>
                  {one.version !== segmentation.version && (
                    <>
                      <Button
                        size="compact-xs"
                        variant="default"
                        data-testid="compare-version"
                        onClick={() => comparing.mutate(one.version)}
                      >
                        {t('segmentation.compareShort')}
                      </Button>
                      <Button
                        size="compact-xs"
                        variant="light"
                        disabled={!editable || one.deleted}
                        loading={restoring.isPending && restoring.variables === one.version}
                        data-testid="restore-version"
                        onClick={() => restoring.mutate(one.version)}
                      >
                        {t('segmentation.restore')}
                      </Button>
                    </>
                  )}
                </Group>
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
    </Modal>
  );
}
