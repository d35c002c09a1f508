/** The one cache of server data. */
import { QueryClient } from '@tanstack/react-query';
import { RequestFailed } from '../api/failure';

/** Retrying what the server refused only delays the message; what never arrived is worth two more tries. */
const MAX_RETRIES = 2;

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 30_000,
      refetchOnWindowFocus: false,
      retry: (count, error) => !(error instanceof RequestFailed && error.status < 500) && count < MAX_RETRIES,
    },
  },
});
